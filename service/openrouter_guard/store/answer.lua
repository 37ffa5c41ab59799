-- Add a worker's answer to the open question, once.
-- KEYS[1]  the state hash
-- ARGV[1]  the number of the question
-- ARGV[2]  the reporter that answers
-- ARGV[3]  how many of its calls contradict the failures
-- Returns  1 if it was added, 0 if that question is closed, or already has this answer; then own.lua's report
local LENGTH = 16384

local asked, answers = unpack(redis.call("HMGET", KEYS[1], "question", "answers"))
local number, total, names = string.match(answers or "", "^(%d+) (%d+)(.*)$")
if number ~= ARGV[1] or #total > 9 then total, names = 0, "" end
local is_out = string.match(asked or "", "^(%d+) ") == ARGV[1]
local is_told = string.find(names .. " ", " " .. ARGV[2] .. " ", 1, true)
if not is_out or is_told or #names > LENGTH - 100 then return { 0, foreign, optional } end
redis.call("HSET", KEYS[1], "answers", string.format("%s %.0f%s %s", ARGV[1], total + ARGV[3], names, ARGV[2]))
return { 1, foreign, optional }

-- Change the state only if what the decision rests on is still as it was read.
-- KEYS[1]  the state hash
-- KEYS[2]  the history stream
-- KEYS[3]… the metrics hash of each day whose time is to be put down
-- ARGV[1]  JSON object of the fields as read; "" means: no such field
-- ARGV[2]  JSON object of the fields to set; "" means: delete the field
-- ARGV[3]  lifetime in seconds
-- ARGV[4]  channel to wake those who listen
-- ARGV[5]  the message for them; "" means: nothing that they need to know changed
-- ARGV[6]  JSON list with one object for each of those days: what to add to which counter
-- ARGV[7]  when what the decision rests on was read, in seconds
-- ARGV[8]  number of transitions to write into the history, then for each its epoch and its fields as JSON
-- Returns  1 if changed, 0 if somebody was faster; the epoch of a state that began, else ""; and what own.lua tells of
-- After so many seconds, who decided looks again.
local DECISION_LIFE_S = 2
local METRICS_LIFE_S = 30 * 24 * 3600
-- After fewer seconds nothing is known of the rate of calls.
local RATE_AFTER_S = 5
-- What is written down of these in "known" is what our scripts left: where it differs, somebody else wrote.
local MARKED = { "last_check", "last_success", "balance", "usage_today", "usage_month" }

local function mark()
  local values = redis.call("HMGET", KEYS[1], unpack(MARKED))
  for i, value in ipairs(values) do values[i] = string.gsub(value or "", "|", "") end
  return table.concat(values, "|")
end

-- An older writer wakes nobody: from now on all look for themselves.
local function note_older_writer()
  local known, last_check = redis.call("HGET", KEYS[1], "known"), redis.call("HGET", KEYS[1], "last_check") or ""
  local left = string.match(known or "", "^[^|]*")
  if known and left ~= last_check or not known and last_check ~= "" then
    redis.call("HSET", KEYS[1], "older_writer", redis.call("TIME")[1])
  end
end

-- A fleet that has not called for a whole minute yet has a rate all the same: it comes back by it.
local function keep_rate()
  local known = redis.call("HMGET", KEYS[1], "calls_per_minute", "calls_counted", "calls_since")
  local counted, since = string.match(known[2] or "", "^%d+$"), string.match(known[3] or "", "^%d+$")
  if (known[1] or "") ~= "" or not counted or not since or #counted > 9 or #since > 10 then return end
  local passed_s = redis.call("TIME")[1] - since
  if passed_s >= RATE_AFTER_S then
    redis.call("HSET", KEYS[1], "calls_per_minute", string.format("%.1f", counted * 60 / passed_s))
  end
end

local fields_read, changes = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local time = redis.call("TIME")
local began = ""
if fields_read.epoch == "" then
  -- Nothing to compare with: a decision that took long may be of before a loss. One that did not begins a state, in an
  -- epoch that was not used before, and nobody sees another one meanwhile.
  if time[1] - ARGV[7] > DECISION_LIFE_S then return { 0, "", foreign, optional } end
  began = string.format("%.0f", math.max(changes.epoch, time[1] * 1000 + math.floor(time[2] / 1000)))
  changes.epoch, changes.begun = began, began
end
for field, value in pairs(fields_read) do
  if (redis.call("HGET", KEYS[1], field) or "") ~= value then return { 0, "", foreign, optional } end
end
note_older_writer()
for field, value in pairs(changes) do
  if value == "" then
    redis.call("HDEL", KEYS[1], field)
  else
    redis.call("HSET", KEYS[1], field, value)
  end
end
-- The minute in which calls were counted ends where they must wait, and begins anew where they may go.
if changes.breaker or changes.override or changes.limited_until then
  keep_rate()
  redis.call("HDEL", KEYS[1], "calls_counted", "calls_since")
end
redis.call("HSET", KEYS[1], "known", mark())
-- What is no number, or too large for one, begins anew, later than all that was counted before.
local version = redis.pcall("HINCRBY", KEYS[1], "version", 1)
if type(version) == "table" then redis.call("HSET", KEYS[1], "version", time[1]) end
redis.call("EXPIRE", KEYS[1], ARGV[3])
for day, counters in ipairs(cjson.decode(ARGV[6])) do
  -- What is wrong with the metrics must not keep the breaker from changing.
  if try("HMGET", KEYS[2 + day], "total_calls") then
    for counter, amount in pairs(counters) do
      redis.pcall("HINCRBY", KEYS[2 + day], counter, amount)
    end
    redis.call("EXPIRE", KEYS[2 + day], METRICS_LIFE_S)
  end
end
for i = 1, tonumber(ARGV[8]) do
  local id, fields = ARGV[7 + 2 * i] .. "-0", cjson.decode(ARGV[8 + 2 * i])
  told("XADD", KEYS[2], append(KEYS[2], id, fields))
end
-- A user without the right to publish commits all the same, and others see it when they look: from now on often.
if ARGV[5] ~= "" and not may("PUBLISH", ARGV[4], ARGV[5]) then
  redis.call("HSET", KEYS[1], "older_writer", time[1])
end
return { 1, began, foreign, optional }

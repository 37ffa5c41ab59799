-- Claim a number, so that only one process acts on it.
-- KEYS[1]  the state
-- ARGV[1]  the field that remembers the highest number claimed
-- ARGV[2]  the number
-- Returns  1 if the caller got it, 0 if it or a higher one was claimed before, or there is no state
local AHEAD_MOST = 2 * 24 * 3600 * 1000
if not redis.call("HGET", KEYS[1], "epoch") then
  return 0
end
-- An invalid number, or one far ahead of the claimed ones, cannot be claimed.
local claimed, number = redis.call("HGET", KEYS[1], ARGV[1]) or "", tonumber(ARGV[2])
claimed = #claimed <= 15 and string.find(claimed, "^%d+$") and tonumber(claimed) or 0
if claimed >= number and claimed <= number + AHEAD_MOST then
  return 0
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return 1

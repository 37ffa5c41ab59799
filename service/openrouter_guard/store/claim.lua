-- Claim a number for one of many that want to act on it.
-- KEYS[1]  the state
-- ARGV[1]  the field that remembers the highest number claimed
-- ARGV[2]  the number
-- Returns  1 if it is the caller's, 0 if it or a higher one was claimed before, or nothing is known
if not redis.call("HGET", KEYS[1], "epoch") then
  return 0
end
if tonumber(redis.call("HGET", KEYS[1], ARGV[1]) or 0) >= tonumber(ARGV[2]) then
  return 0
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return 1

-- Read the state at one moment.
-- KEYS[1]  the state hash
-- KEYS[2]  the hash of single models
-- ARGV     the fields to return
-- Returns  TIME as two strings, the values of ARGV, the models, and the keys that hold what is not ours
local models = ours(KEYS[2], "hash") and redis.call("HGETALL", KEYS[2]) or {}
local time = redis.call("TIME")
return { time[1], time[2], redis.call("HMGET", KEYS[1], unpack(ARGV)), models, foreign }

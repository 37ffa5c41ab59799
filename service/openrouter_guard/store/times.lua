-- Read the data for the time in each state at one moment: time recorded between two reads would be counted twice,
-- or not at all.
-- KEYS[1]   the state hash
-- KEYS[2]…  the metrics hash of each day
-- ARGV[1]   JSON list of the fields of the state
-- ARGV[2]   JSON list of the fields of each day
-- Returns   TIME as two strings, the values of ARGV[1], those of ARGV[2] for each day, then own.lua's report
local state = redis.call("HMGET", KEYS[1], unpack(cjson.decode(ARGV[1])))
local day_fields = cjson.decode(ARGV[2])
local days = {}
for at = 2, #KEYS do
  days[#days + 1] = try("HMGET", KEYS[at], unpack(day_fields)) or {}
end
local time = redis.call("TIME")
return { time[1], time[2], state, days, foreign, optional }

-- Take or renew a permit if nothing else has to be decided: with_permit in rules/breaker.py and
-- rules/trial_calls.py, in one round trip and without lost races.
-- Rare or odd cases are left to that rule: an override, a rate limit, a shortened wait, the turn to half-open, a loss.
-- KEYS[1]  the state hash
-- ARGV[1]  the owner of the permit
-- ARGV[2]  its lease in seconds
-- ARGV[3]  the number of permits
-- ARGV[4]  the epoch known to the owner
-- ARGV[5]  "1" to take one, "0" to renew the owner's, if it still has one
-- ARGV[6]  lifetime of the hash in seconds
-- ARGV[7]  JSON list of the fields to return
-- ARGV[8]  when the state became half-open, in Unix seconds, for that epoch; 0 if unknown
-- ARGV[9]  one permit at first, and one more after each such time in seconds; 0: all at once
-- Returns  "taken", "refused", or "undecided" if the rule has to decide; TIME as two strings, the values of ARGV[7],
--          then own.lua's report
local PERMITS_LENGTH = 8192
local OWNER_LENGTH = 200
local owner, lease_s, permits = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call("TIME")
local now_s = tonumber(time[1]) + tonumber(time[2]) / 1e6

-- A time in Python's format.
local function iso()
  local days, rest = math.floor(time[1] / 86400) + 719468, time[1] % 86400
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor(
    (day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365
  )
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return string.format(
    "%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00",
    year, month, day, math.floor(rest / 3600), math.floor(rest % 3600 / 60), rest % 60, time[2]
  )
end

-- The number of permits by now.
local function permits_by()
  local since_s, next_s = tonumber(ARGV[8]), tonumber(ARGV[9])
  if next_s == 0 then return permits end
  return math.min(1 + math.floor(math.max(now_s - since_s, 0) / next_s), permits)
end

-- The holders and their leases, or nil if they cannot be read.
local function held(text)
  if text == "" then return {} end
  if #text > PERMITS_LENGTH or string.find(text, "[^ -~]") or string.sub(text, 1, 1) ~= "{" then return nil end
  local ok, found = pcall(cjson.decode, text)
  if not ok or type(found) ~= "table" then return nil end
  for name, until_s in pairs(found) do
    if type(name) ~= "string" or #name > OWNER_LENGTH or type(until_s) ~= "number" then return nil end
    if not (until_s >= 0 and until_s <= now_s + 2 * lease_s) then return nil end
  end
  return found
end

local function decided()
  local names = { "breaker", "epoch", "transitions", "override", "rate_limit_reset", "limited_until", "permits",
    "open_until" }
  local known = {}
  for i, value in ipairs(redis.call("HMGET", KEYS[1], unpack(names))) do known[names[i]] = value or "" end
  if known.breaker ~= "half_open" or known.epoch ~= ARGV[4] then return "undecided" end
  if string.sub(known.transitions, 1, 2) ~= "[{" or string.find(owner, "[^ -~]") then return "undecided" end
  if known.override .. known.rate_limit_reset .. known.limited_until .. known.open_until ~= "" then return "undecided" end
  local all = held(known.permits)
  if not all then return "undecided" end
  if ARGV[5] == "0" and not all[owner] then return "refused" end

  local live, count = {}, 0
  for name, until_s in pairs(all) do
    if until_s > now_s then live[name], count = until_s, count + 1 end
  end
  if not live[owner] and count >= permits_by() then return "refused" end
  live[owner] = now_s + lease_s
  local rows = {}
  for name, until_s in pairs(live) do
    rows[#rows + 1] = cjson.encode(name) .. string.format(": %.6f", until_s)
  end
  table.sort(rows)
  redis.call("HSET", KEYS[1], "permits", "{" .. table.concat(rows, ", ") .. "}", "tried_at", iso())
  -- As in commit.lua: an invalid number starts again.
  local version = redis.pcall("HINCRBY", KEYS[1], "version", 1)
  if type(version) == "table" then redis.call("HSET", KEYS[1], "version", time[1]) end
  redis.call("EXPIRE", KEYS[1], ARGV[6])
  return "taken"
end

local verdict = decided()
local values = redis.call("HMGET", KEYS[1], unpack(cjson.decode(ARGV[7])))
return { verdict, time[1], time[2], values, foreign, optional }

-- Lease a number: only one process acts on it, and another one does if that process goes away before it is done.
-- KEYS[1]  the state
-- ARGV[1]  the field that remembers the highest number leased; a second field, with _leases after it, has the leases
-- ARGV[2]  the number
-- ARGV[3]  the caller, in hexadecimal digits
-- ARGV[4]  milliseconds of the lease; 0 ends it, so that another one may have it at once; -1: the number is done
-- ARGV[5]  "1" if the number may be new, "0" to take over from others only
-- Returns  0 if the caller has it, -1 if nobody needs to act on it any more, -2 if Redis has lost the state, else the
--          milliseconds left to its holder
local AHEAD_MOST = 2 * 24 * 3600 * 1000
local LEASES_MOST, LEASE_MOST_MS = 16, 3600 * 1000
local field, number, caller, life_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
if not redis.call("HGET", KEYS[1], "epoch") then
  return life_ms > 0 and -2 or -1
end
local time = redis.call("TIME")
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- Anything else in the field is not ours, and is dropped.
local others, holder, ends_ms = {}, nil, 0
for each, by, ends in string.gmatch(redis.call("HGET", KEYS[1], field .. "_leases") or "", "(%d+):(%x+):(%d+);") do
  if #each <= 15 and #ends <= 15 and #others < LEASES_MOST then
    if tonumber(each) == number then
      holder, ends_ms = by, tonumber(ends)
    else
      others[#others + 1] = each .. ":" .. by .. ":" .. ends .. ";"
    end
  end
end

-- An invalid number, or one far ahead of ours, was never leased.
local highest = redis.call("HGET", KEYS[1], field) or ""
highest = #highest <= 15 and string.find(highest, "^%d+$") and tonumber(highest) or 0
local is_new = highest < number or highest > number + AHEAD_MOST
if is_new and (ARGV[5] ~= "1" or life_ms <= 0) or not is_new and not holder then
  return -1
end
local is_held = ends_ms > now_ms and ends_ms <= now_ms + LEASE_MOST_MS
if not is_new and holder ~= caller and (is_held or life_ms <= 0) then
  return math.max(ends_ms - now_ms, 1)
end
if is_new then
  redis.call("HSET", KEYS[1], field, ARGV[2])
end
if life_ms >= 0 then
  others[#others + 1] = string.format("%s:%s:%.0f;", ARGV[2], caller, now_ms + life_ms)
end
if #others > LEASES_MOST then
  table.remove(others, 1)
end
redis.call("HSET", KEYS[1], field .. "_leases", table.concat(others))
return life_ms >= 0 and 0 or -1

-- Change the state only if the fields that the decision depends on are unchanged since they were read.
-- KEYS[1]  the state hash
-- KEYS[2]  the history stream
-- KEYS[3]… the metrics hash of each day that time has to be recorded for
-- ARGV[1]  JSON object of those fields as read; "" means that the field is missing
-- ARGV[2]  JSON object of the fields to set; "" deletes the field
-- ARGV[3]  lifetime in seconds
-- ARGV[4]  channel of the listeners
-- ARGV[5]  message for them; "" if no change concerns them
-- ARGV[6]  JSON list with one object per day: additions to its counters
-- ARGV[7]  time of the read, in seconds
-- ARGV[8]  number of transitions to write into the history, then for each its epoch and its fields as JSON
-- Returns  1 if changed, 0 if another process was faster; the epoch of a new state, else ""; then own.lua's report
-- After this many seconds the decision is made again.
local DECISION_LIFE_S = 2
local METRICS_LIFE_S = 30 * 24 * 3600
-- In fewer seconds the rate of calls cannot be measured.
local RATE_AFTER_S = 5
-- "known" records the values of these fields that our scripts left: if they differ, another system has written.
local MARKED = { "last_check", "last_success", "balance", "usage_today", "usage_month" }

local function mark()
  local values = redis.call("HMGET", KEYS[1], unpack(MARKED))
  for i, value in ipairs(values) do values[i] = string.gsub(value or "", "|", "") end
  return table.concat(values, "|")
end

-- An older writer wakes no listener: from now on all processes poll.
local function note_older_writer()
  local known, last_check = redis.call("HGET", KEYS[1], "known"), redis.call("HGET", KEYS[1], "last_check") or ""
  local left = string.match(known or "", "^[^|]*")
  if known and left ~= last_check or not known and last_check ~= "" then
    redis.call("HSET", KEYS[1], "older_writer", redis.call("TIME")[1])
  end
end

local function whole(text, digits)
  return text and #text <= digits and tonumber(string.match(text, "^%d+$")) or nil
end

-- A fleet that has called for less than a minute has a rate too: it comes back at that rate. The failures that ended the
-- minute are not part of it, because they may have come in one burst.
local function keep_rate()
  local known = redis.call("HMGET", KEYS[1], "calls_per_minute", "calls_counted", "calls_since", "consecutive_failures")
  local counted, since_s, failures = whole(known[2], 9), whole(known[3], 10), whole(known[4], 9) or 0
  if (known[1] or "") ~= "" or not counted or not since_s or counted <= failures then return end
  local passed_s = redis.call("TIME")[1] - since_s
  if passed_s >= RATE_AFTER_S then
    redis.call("HSET", KEYS[1], "calls_per_minute", string.format("%.1f", (counted - failures) * 60 / passed_s))
  end
end

local fields_read, changes = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local time = redis.call("TIME")
local began = ""
if fields_read.epoch == "" then
  -- Nothing to compare with: a slow decision may be from before a loss. Any other begins a state, in a new
  -- epoch.
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
-- The minute in which calls are counted ends when calls must wait, and starts again when they may go.
if changes.breaker or changes.override or changes.limited_until then
  keep_rate()
  redis.call("HDEL", KEYS[1], "calls_counted", "calls_since")
end
redis.call("HSET", KEYS[1], "known", mark())
-- An invalid or too large number starts again, above all earlier counts.
local version = redis.pcall("HINCRBY", KEYS[1], "version", 1)
if type(version) == "table" then redis.call("HSET", KEYS[1], "version", time[1]) end
redis.call("EXPIRE", KEYS[1], ARGV[3])
for day, counters in ipairs(cjson.decode(ARGV[6])) do
  -- Damaged metrics must not prevent a change of the breaker.
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
-- A user without the right to publish can still commit; others then see it at their next poll.
if ARGV[5] ~= "" and not may("PUBLISH", ARGV[4], ARGV[5]) then
  redis.call("HSET", KEYS[1], "older_writer", time[1])
end
return { 1, began, foreign, optional }

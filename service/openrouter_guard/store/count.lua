-- Count a batch of results, once, in the order they came.
-- Atomic and without retries: under load, counting by compare-and-set spends its time on lost races.
-- Each hash is read by one command and written by one: what counting costs Redis does not grow with the batch.
-- KEYS[1]  the state hash
-- KEYS[2]  the day's metrics hash
-- KEYS[3]  the day's list of worker errors
-- KEYS[4]  the hash of single models
-- ARGV[1]  the epoch in which the calls began; "0" if the reporter does not know it, "-1" if they are too
--          old to decide anything and belong into the metrics only
-- ARGV[2]  the reporter
-- ARGV[3]  the batch's number, which grows with every batch of this reporter
-- ARGV[4]  the results as runs in their order: "S12 F3" is twelve successes, then three failures; "C1" is a
--          failure that says that the account is out of credit
-- ARGV[5]  JSON object of hash fields to set if the results count
-- ARGV[6]  JSON object of counters to add to the metrics
-- ARGV[7]  JSON list of worker errors, oldest first
-- ARGV[8]  lifetime of a closed state, in seconds
-- ARGV[9]  JSON list of the fields to return
-- ARGV[10] JSON object: for each model called, whether a call ended well, the failures after it, until when the
--          upstream wants calls to wait, and why; "{}" if there is nothing to tell
-- ARGV[11] when the last of the successes and the first of the failures after it ended, as "seconds seconds"; "0"
--          for now
-- ARGV[12] channel to wake those who listen
-- ARGV[13] the scope
-- ARGV[14] for the window of all calls: how many ended, how many failed, how many were slow, and how many seconds
--          it reaches back, as in "20 3 1 60"; "" if nobody watches it
-- Returns  what became of it ("counted", "late": of another epoch or a breaker that is not closed,
--          "repeated": this batch was here before), TIME as two strings, the values of ARGV[9], the models, and
--          how many seconds ago somebody was last noticed who writes and wakes nobody; "" if nobody was; and what
--          own.lua tells of
local METRICS_LIFE_S = 30 * 24 * 3600
local ERRORS_LIFE_S = 7 * 24 * 3600
local ERRORS_KEPT = 1000
local REPORTER_LIFE_S = 60
-- So long a reporter's last batch is known, lest it count again when its answer was lost.
local BATCH_LIFE_S = 600
local REPORTERS_KEPT = 1000
local MINUTE_S = 60
local MODEL_LIFE_S = 600
local MODELS_LIFE_S = 26 * 3600
local RUN_KEPT = 3
local STEP_S = 10
-- So many failures in a row are pushed to all, whose successes may wait to be reported while there are none.
local SUSPECT = 2
-- Results count in the order in which they come, a success that is told so much later than it ended in the order of
-- their ends. With less, large fleets would trip by chance: failures come at once, successes do not.
local LATE_S = 1
local OWN = { "reporters", "calls_counted", "calls_since", "run_since", "counted_call", "older_writer" }

local state, reporter, seq = KEYS[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call("TIME")
local now_s = tonumber(time[1])

-- The hash as it is, with what is set meanwhile; written once, at the end.
local returned = cjson.decode(ARGV[9])
local known, changed = {}, {}
do
  local names = {}
  for _, name in ipairs(returned) do names[#names + 1] = name end
  for _, name in ipairs(OWN) do names[#names + 1] = name end
  local values = redis.call("HMGET", state, unpack(names))
  for i, name in ipairs(names) do known[name] = values[i] or "" end
end

local function set(field, value)
  value = tostring(value)
  if known[field] ~= value then
    known[field] = value
    changed[#changed + 1] = field
    changed[#changed + 1] = value
  end
end

-- Times are told apart by their text: all of ours are of one form, in UTC.
local function is_later(known_time, value)
  return string.sub(known_time, -6) == "+00:00" and known_time > value
end

local function add(key, counters)
  local names, totals, is_new = {}, {}, false
  for name in pairs(counters) do names[#names + 1] = name end
  if #names == 0 then return end
  for i, value in ipairs(try("HMGET", key, unpack(names)) or {}) do
    is_new = is_new or not value
    local total = tonumber(value or "0")
    if total then
      totals[#totals + 1] = names[i]
      totals[#totals + 1] = string.format("%.0f", total + counters[names[i]])
    end
  end
  if #totals > 0 then redis.call("HSET", key, unpack(totals)) end
  if is_new then redis.call("EXPIRE", key, METRICS_LIFE_S) end
end

-- Count the runs, and return how many failures there are now in a row.
local function count_runs()
  local success_s, failure_s = string.match(ARGV[11], "^(%S+) (%S+)$")
  success_s, failure_s = tonumber(success_s or 0), tonumber(failure_s or 0)
  local failures = tonumber(known.consecutive_failures) or 0
  local run = failures > 0 and known.run or ""
  local run_since = failures > 0 and tonumber(known.run_since) or 0
  local refusals = math.min(tonumber(known.credit_refusals) or 0, failures)
  -- A success that ended before the run began, and was only told later, does not end it.
  local ends_run = success_s == 0 or success_s >= run_since - LATE_S
  local is_told = ends_run
  for kind, count in string.gmatch(ARGV[4], "(%u)(%d+)") do
    if kind ~= "S" then
      is_told = true
      if failures == 0 then run_since = failure_s > 0 and failure_s or now_s end
      failures = failures + tonumber(count)
      if kind == "C" then refusals = refusals + tonumber(count) end
      local _, members = string.gsub(run, "%S+", "")
      if members < RUN_KEPT and not string.find(" " .. run .. " ", " " .. reporter .. " ", 1, true) then
        run = run == "" and reporter or run .. " " .. reporter
      end
    elseif ends_run then
      failures, run, refusals = 0, "", 0
    end
  end
  set("consecutive_failures", failures)
  set("run", run)
  set("run_since", failures > 0 and string.format("%.6f", run_since) or "")
  set("credit_refusals", refusals)
  return failures, is_told
end

-- The window with one batch more, as "from:calls:failures:slow:reporters" for each step that it reaches back to.
local function window_with(calls, failures, slow, reach_s)
  local step, kept, names = now_s - now_s % STEP_S, {}, ""
  for from, c, f, s, members in string.gmatch(known.window, "(%d+):(%d+):(%d+):(%d+):(%S*)") do
    if tonumber(from) == step then
      calls, failures, slow, names = calls + c, failures + f, slow + s, members
    elseif tonumber(from) > now_s - reach_s then
      kept[#kept + 1] = from .. ":" .. c .. ":" .. f .. ":" .. s .. ":" .. members
    end
  end
  local _, others = string.gsub(names, "[^,]+", "")
  if failures + slow > 0 and others < RUN_KEPT and not string.find("," .. names .. ",", "," .. reporter .. ",", 1, true) then
    names = names == "" and reporter or names .. "," .. reporter
  end
  kept[#kept + 1] = string.format("%d:%d:%d:%d:%s", step, calls, failures, slow, names)
  return table.concat(kept, " ")
end

-- The reporters, longest silent first, each as "name:batch:seconds ".
local ring = known.reporters
local from, to, last_seq = string.find(ring, reporter .. ":(%d+):%d+ ")
local verdict, is_news = "counted", false
local models = try("HGETALL", KEYS[4])
if from and tonumber(last_seq) >= seq then
  verdict = "repeated"
else
  if from then ring = string.sub(ring, 1, from - 1) .. string.sub(ring, to + 1) end
  ring = ring .. reporter .. ":" .. ARGV[3] .. ":" .. time[1] .. " "
  local _, kept = string.gsub(ring, " ", "")
  local live, at = kept, 1
  while true do
    local _, stop, seen = string.find(ring, "^[^:]+:%d+:(%d+) ", at)
    if kept > REPORTERS_KEPT or tonumber(seen) <= now_s - BATCH_LIFE_S then
      ring = string.sub(ring, stop + 1)
      kept = kept - 1
    elseif tonumber(seen) <= now_s - REPORTER_LIFE_S then
      at = stop + 1
    else
      break
    end
    live = live - 1
  end

  -- An older writer opens by this flag alone: what comes after it must not take it back.
  local flagged = string.lower(known.circuit_breaker_open) == "true"
  local disabled = string.find(known.override, '"disabled"', 1, true)
  local closed = (known.breaker == "closed" or known.breaker == "") and not flagged and not disabled
  local elsewhere = ARGV[1] ~= "0" and known.epoch ~= "" and ARGV[1] ~= known.epoch
  local begins = known.epoch == "" or known.calls_since == ""
  if known.counted_call ~= "" and known.last_api_call ~= known.counted_call then set("older_writer", now_s) end
  if not closed or elsewhere or ARGV[1] == "-1" then
    verdict = "late"
  else
    local failed_before = tonumber(known.consecutive_failures) or 0
    local failures, is_told = count_runs()
    is_news = failures >= SUSPECT and failed_before < SUSPECT
    if known.epoch == "" then
      -- Server milliseconds: an epoch that was lost with the data is never used again.
      local fresh = now_s * 1000 + math.floor(tonumber(time[2]) / 1000)
      set("epoch", string.format("%.0f", math.max(fresh, tonumber(ARGV[1]) + 1)))
    end
    set("breaker", "closed")
    set("circuit_breaker_open", "false")
    local calls, failed, slow, reach_s = string.match(ARGV[14], "(%d+) (%d+) (%d+) (%d+)")
    if calls then set("window", window_with(calls, failed, slow, reach_s)) end
    for field, value in pairs(cjson.decode(ARGV[5])) do
      if string.sub(field, 1, 5) == "last_" then
        if not is_later(known[field] or "", value) then set(field, value) end
      elseif is_told then
        set(field, value)
      end
    end
  end
  set("counted_call", known.last_api_call)
  local counters = cjson.decode(ARGV[6])
  -- Measured over a minute, or over the pause that followed it: a fleet that slept begins anew.
  local calls = (tonumber(known.calls_counted) or 0) + (counters.total_calls or 0)
  local since_s = tonumber(known.calls_since) or now_s
  if now_s - since_s >= MINUTE_S then
    set("calls_per_minute", string.format("%.1f", calls * MINUTE_S / (now_s - since_s)))
    calls, since_s, begins = 0, now_s, true
  end
  set("reporters", ring)
  set("live_reporters", live)
  set("calls_counted", calls)
  set("calls_since", since_s)
  redis.call("HSET", state, unpack(changed))
  -- Once a minute is enough for what lives ten.
  if verdict == "counted" and known.override == "" and begins then redis.call("EXPIRE", state, ARGV[8]) end

  add(KEYS[2], counters)
  if models and ARGV[1] ~= "-1" and ARGV[10] ~= "{}" then
    local all, told, gone = {}, {}, {}
    for i = 1, #models, 2 do
      local ok, model = pcall(cjson.decode, models[i + 1])
      all[models[i]] = ok and type(model) == "table" and model or {}
    end
    for name, run in pairs(cjson.decode(ARGV[10])) do
      local model = all[name] or {}
      model.seen_s = now_s
      model.failures = run.failures + (run.ended and 0 or tonumber(model.failures) or 0)
      if run.failures > 0 then model.failed_s = now_s end
      is_news = is_news or run.until_s > now_s or (run.failures > 0 and model.failures >= SUSPECT)
      -- The later time wins: a shorter wait never takes back a longer one.
      model.until_s = math.max(tonumber(model.until_s) or 0, run.until_s)
      if run.reason ~= "" then model.reason = run.reason end
      all[name] = model
      told[#told + 1] = name
      told[#told + 1] = cjson.encode(model)
    end
    redis.call("HSET", KEYS[4], unpack(told))
    for name, model in pairs(all) do
      local seen_s, until_s = tonumber(model.seen_s) or 0, tonumber(model.until_s) or 0
      if seen_s < now_s - MODEL_LIFE_S and until_s < now_s then gone[#gone + 1] = name end
    end
    if #gone > 0 then redis.call("HDEL", KEYS[4], unpack(gone)) end
    redis.call("EXPIRE", KEYS[4], MODELS_LIFE_S)
    models = redis.call("HGETALL", KEYS[4])
  end
  local errors = cjson.decode(ARGV[7])
  if #errors > 0 and try("LPUSH", KEYS[3], unpack(errors)) then
    redis.call("LTRIM", KEYS[3], 0, ERRORS_KEPT - 1)
    redis.call("EXPIRE", KEYS[3], ERRORS_LIFE_S)
  end
  if is_news then
    local news = { scope = ARGV[13], epoch = known.epoch, breaker = "closed", open_until = "" }
    if not may("PUBLISH", ARGV[12], cjson.encode(news)) then redis.call("HSET", state, "older_writer", now_s) end
  end
end

local values = {}
for i, name in ipairs(returned) do values[i] = known[name] ~= "" and known[name] end
local older = tonumber(known.older_writer)
return { verdict, time[1], time[2], values, models or {}, older and tostring(now_s - older) or "", foreign, optional }

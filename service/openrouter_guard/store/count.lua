-- Count a batch of results, once, in the order they came.
-- Atomic and without retries: under load, counting by compare-and-set spends its time on lost races.
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
-- ARGV[11] for the window of all calls: how many ended, how many failed, how many were slow, and how many seconds
--          it reaches back, as in "20 3 1 60"; "" if nobody watches it
-- Returns  what became of it ("counted", "late": of another epoch or a breaker that is not closed,
--          "repeated": this batch was here before), TIME as two strings, the values of ARGV[9], and the models
local METRICS_LIFE_S = 30 * 24 * 3600
local ERRORS_LIFE_S = 7 * 24 * 3600
local ERRORS_KEPT = 1000
local REPORTER_LIFE_S = 60
local REPORTERS_KEPT = 1000
local MINUTE_S = 60
local MODEL_LIFE_S = 600
local MODELS_LIFE_S = 26 * 3600
local RUN_KEPT = 3
local STEP_S = 10

local state, reporter, seq = KEYS[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call("TIME")
local now_s = tonumber(time[1])

local function get(field)
  return redis.call("HGET", state, field) or ""
end

-- The window with one batch more, as "from:calls:failures:slow:reporters" for each step that it reaches back to.
local function window_with(calls, failures, slow, reach_s)
  local step, kept, names = now_s - now_s % STEP_S, {}, ""
  for from, c, f, s, known in string.gmatch(get("window"), "(%d+):(%d+):(%d+):(%d+):(%S*)") do
    if tonumber(from) == step then
      calls, failures, slow, names = calls + c, failures + f, slow + s, known
    elseif tonumber(from) > now_s - reach_s then
      table.insert(kept, from .. ":" .. c .. ":" .. f .. ":" .. s .. ":" .. known)
    end
  end
  local _, commas = string.gsub(names, ",", "")
  local is_full = names ~= "" and commas + 1 >= RUN_KEPT
  if failures + slow > 0 and not is_full and not string.find("," .. names .. ",", "," .. reporter .. ",", 1, true) then
    names = names == "" and reporter or names .. "," .. reporter
  end
  table.insert(kept, string.format("%d:%d:%d:%d:%s", step, calls, failures, slow, names))
  return table.concat(kept, " ")
end

-- The reporters, longest silent first, each as "name:batch:seconds ".
local ring = get("reporters")
local from, to, last_seq = string.find(ring, reporter .. ":(%d+):%d+ ")
local verdict = "counted"
if from and tonumber(last_seq) >= seq then
  verdict = "repeated"
else
  if from then ring = string.sub(ring, 1, from - 1) .. string.sub(ring, to + 1) end
  ring = ring .. reporter .. ":" .. ARGV[3] .. ":" .. time[1] .. " "
  local _, live = string.gsub(ring, " ", "")
  while true do
    local _, stop, seen = string.find(ring, "^[^:]+:%d+:(%d+) ")
    if tonumber(seen) > now_s - REPORTER_LIFE_S and live <= REPORTERS_KEPT then break end
    ring = string.sub(ring, stop + 1)
    live = live - 1
  end

  local epoch = get("epoch")
  local breaker = get("breaker")
  -- An older writer opens by this flag alone: what comes after it must not take it back.
  local flagged = string.lower(get("circuit_breaker_open")) == "true"
  local override = get("override")
  local disabled = string.find(override, '"disabled"', 1, true)
  local closed = (breaker == "closed" or breaker == "") and not flagged and not disabled
  local elsewhere = ARGV[1] ~= "0" and epoch ~= "" and ARGV[1] ~= epoch
  if not closed or elsewhere or ARGV[1] == "-1" then
    verdict = "late"
  else
    local failures = tonumber(get("consecutive_failures")) or 0
    local run = failures > 0 and get("run") or ""
    local refusals = math.min(tonumber(get("credit_refusals")) or 0, failures)
    for kind, count in string.gmatch(ARGV[4], "(%u)(%d+)") do
      if kind == "S" then
        failures, run, refusals = 0, "", 0
      else
        failures = failures + tonumber(count)
        if kind == "C" then refusals = refusals + tonumber(count) end
        local _, members = string.gsub(run, "%S+", "")
        if members < RUN_KEPT and not string.find(" " .. run .. " ", " " .. reporter .. " ", 1, true) then
          run = run == "" and reporter or run .. " " .. reporter
        end
      end
    end
    if epoch == "" then
      -- Server milliseconds: an epoch that was lost with the data is never used again.
      local fresh = now_s * 1000 + math.floor(tonumber(time[2]) / 1000)
      redis.call("HSET", state, "epoch", string.format("%.0f", math.max(fresh, tonumber(ARGV[1]) + 1)))
    end
    redis.call("HSET", state, "breaker", "closed", "circuit_breaker_open", "false",
      "consecutive_failures", failures, "run", run, "credit_refusals", refusals)
    for field, value in pairs(cjson.decode(ARGV[5])) do
      redis.call("HSET", state, field, value)
    end
    local calls, failed, slow, reach_s = string.match(ARGV[11], "(%d+) (%d+) (%d+) (%d+)")
    if calls then redis.call("HSET", state, "window", window_with(calls, failed, slow, reach_s)) end
    if override == "" then redis.call("EXPIRE", state, ARGV[8]) end
  end
  local counters = cjson.decode(ARGV[6])
  -- Measured over a minute, or over the pause that followed it: a fleet that slept begins anew.
  local calls = (tonumber(get("calls_counted")) or 0) + (counters.total_calls or 0)
  local since_s = tonumber(get("calls_since")) or now_s
  if now_s - since_s >= MINUTE_S then
    redis.call("HSET", state, "calls_per_minute", string.format("%.1f", calls * MINUTE_S / (now_s - since_s)))
    calls, since_s = 0, now_s
  end
  redis.call("HSET", state, "reporters", ring, "live_reporters", live, "calls_counted", calls, "calls_since", since_s)

  for counter, amount in pairs(counters) do
    redis.call("HINCRBY", KEYS[2], counter, amount)
  end
  redis.call("EXPIRE", KEYS[2], METRICS_LIFE_S)
  if ARGV[1] ~= "-1" and ARGV[10] ~= "{}" then
    for name, run in pairs(cjson.decode(ARGV[10])) do
      local known = redis.call("HGET", KEYS[4], name)
      local ok, model = pcall(cjson.decode, known or "{}")
      if not ok or type(model) ~= "table" then model = {} end
      model.seen_s = now_s
      model.failures = run.failures + (run.ended and 0 or tonumber(model.failures) or 0)
      if run.failures > 0 then model.failed_s = now_s end
      -- The later time wins: a shorter wait never takes back a longer one.
      model.until_s = math.max(tonumber(model.until_s) or 0, run.until_s)
      if run.reason ~= "" then model.reason = run.reason end
      redis.call("HSET", KEYS[4], name, cjson.encode(model))
    end
    local all = redis.call("HGETALL", KEYS[4])
    for i = 1, #all, 2 do
      local ok, model = pcall(cjson.decode, all[i + 1])
      local seen_s = ok and type(model) == "table" and tonumber(model.seen_s) or 0
      local until_s = ok and type(model) == "table" and tonumber(model.until_s) or 0
      if seen_s < now_s - MODEL_LIFE_S and until_s < now_s then redis.call("HDEL", KEYS[4], all[i]) end
    end
    redis.call("EXPIRE", KEYS[4], MODELS_LIFE_S)
  end
  local errors = cjson.decode(ARGV[7])
  if #errors > 0 then
    for _, entry in ipairs(errors) do
      redis.call("LPUSH", KEYS[3], entry)
    end
    redis.call("LTRIM", KEYS[3], 0, ERRORS_KEPT - 1)
    redis.call("EXPIRE", KEYS[3], ERRORS_LIFE_S)
  end
end
return { verdict, time[1], time[2], redis.call("HMGET", state, unpack(cjson.decode(ARGV[9]))),
  redis.call("HGETALL", KEYS[4]) }

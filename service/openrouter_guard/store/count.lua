-- Count a batch of results, once, in order.
-- Atomic and without retries: under load, compare-and-set spends its time on lost races.
-- Each hash is read and written by one command each, so the cost for Redis does not grow with the batch.
-- KEYS[1]  the state hash
-- KEYS[2]  the day's metrics hash
-- KEYS[3]  the day's list of worker errors
-- KEYS[4]  the hash of single models
-- ARGV[1]  JSON object, the batch:
--   epoch            of the calls; 0 if unknown, -1 if they are too old to decide anything and only count in the
--                    metrics
--   reporter, seq    name of the reporter, and the batch's number, which grows with each of its batches; a batch without
--                    a number is never a repetition, and gets the next one here
--   runs             the results in order: [["S", 12], ["F", 3]] is twelve successes, then three failures; "C" is a
--                    failure that reports an account out of credit
--   fields           fields of the hash to set if the results count
--   latest           the latest plausible time; later times are damaged
--   counters         additions to the metrics
--   errors           list of worker errors, oldest first
--   models           per model with news: whether a call ended well, the failures after it, until when the upstream
--                    asks calls to wait, and the reason
--   last_success_s   end of the last success,
--   first_failure_s  and of the first failure after it; 0 for now
--   evidence         of the failures with a known start: their number, the earliest start, their total duration, and the
--                    longest; empty if there are none
--   are_timed        whether the start of all successes is known
--   last_begun_s     latest start of a success; 0 if unknown
--   earlier          number of successes that began before the batch's own failed calls, and did not end their run
--   window           ended, failed and slow calls, and the length of the window in seconds; empty if the optional rates
--                    are off
--   knows_more       whether the reporter knows a lost state, and restores it before it counts
--   life_s           lifetime of a closed state in seconds
--   scope, channel   to wake listeners
-- LIMITS   bounds for reading, and for the models that are kept
-- FIELDS   the fields to return
-- Returns  the outcome ("counted"; "late": of another epoch, or the breaker is not closed; "repeated": counted before;
--          "lost": the state has to be restored first), TIME as two strings, the values of the fields, the models, the
--          seconds since an older writer was last noticed ("" if never), then own.lua's report
local METRICS_LIFE_S = 30 * 24 * 3600
local ERRORS_LIFE_S = 7 * 24 * 3600
local ERRORS_KEPT = 1000
local REPORTER_LIFE_S = 60
-- How long a reporter's last batch is remembered, so that it is not counted twice if the answer was lost.
local BATCH_LIFE_S = 600
local REPORTERS_KEPT = 1000
local MINUTE_S = 60
local MODELS_LIFE_S = 26 * 3600
local RUN_KEPT = 3
local STEP_S = 10
local WINDOW_MOST = 65536
-- From this many failures in a row on, all processes are woken: their successes may be waiting to be reported.
local SUSPECT = 2
-- Results count in order of arrival. A success that arrives this much later than it ended counts in order of its
-- end. With a smaller value, large fleets would open by chance: failures are reported at once, successes are not.
local LATE_S = 1
-- Whole numbers are exact up to here; no batch has a higher one.
local EXACT = 2 ^ 53 - 1
local OWN = { "reporters", "calls_counted", "calls_since", "run_since" }
-- "known" records the values of these fields that our scripts left: if they differ, another system has written.
local MARKED = { "last_check", "last_success", "balance", "usage_today", "usage_month" }

local state, batch = KEYS[1], cjson.decode(ARGV[1])
local reporter = batch.reporter
local time = redis.call("TIME")
local now_s = tonumber(time[1])
local latest_s = now_s + LIMITS.clock_s
local now_ms = now_s * 1000 + math.floor(tonumber(time[2]) / 1000)

-- The hash as read, with the changes so far; written once, at the end.
local known, changed, returned = {}, {}, #FIELDS
for _, name in ipairs(OWN) do FIELDS[#FIELDS + 1] = name end
for i, value in ipairs(redis.call("HMGET", state, unpack(FIELDS))) do known[FIELDS[i]] = value or "" end

local function set(field, value)
  value = type(value) == "number" and string.format("%.0f", value) or tostring(value)
  if known[field] ~= value then
    known[field] = value
    changed[#changed + 1] = field
    changed[#changed + 1] = value
  end
end

local function mark()
  local values = {}
  for i, field in ipairs(MARKED) do values[i] = string.gsub(known[field], "|", "") end
  return table.concat(values, "|")
end

-- Whether an older writer, which wakes no listener, has written since.
local function is_written_over(epoch)
  if known.known == "" then return epoch == 0 and known.last_check ~= "" end
  return string.match(known.known, "^[^|]*") ~= known.last_check
end

-- An epoch: milliseconds of our clock; 0 if it is invalid.
local function epoch_of(value)
  return whole(value, now_ms + LIMITS.epoch_ahead_s * 1000)
end

-- Times are compared as text: ours all have the same form, in UTC.
local function is_later(known_time, value)
  return string.sub(known_time, -6) == "+00:00" and known_time > value and known_time <= batch.latest
end

local function add(key, counters)
  local names, totals, is_new = {}, {}, false
  for name in pairs(counters) do names[#names + 1] = name end
  if #names == 0 then return end
  for i, value in ipairs(try("HMGET", key, unpack(names)) or {}) do
    is_new = is_new or not value
    -- A value that is no count is left alone.
    if string.find(value or "0", "^%-?%d+$") and #(value or "") <= 15 then
      totals[#totals + 1] = names[i]
      totals[#totals + 1] = string.format("%.0f", tonumber(value or "0") + counters[names[i]])
    end
  end
  if #totals > 0 then redis.call("HSET", key, unpack(totals)) end
  if is_new then redis.call("EXPIRE", key, METRICS_LIFE_S) end
end

-- The number of failures of each reporter, as far as known, and the number of those reporters.
local function shares_of(failures)
  local shares, kept, sum = {}, 0, 0
  for name, share in string.gmatch(string.sub(known.run_shares, 1, LIMITS.shares), "(%w+):(%d+)") do
    if shares[name] or kept < LIMITS.share_kept then
      if not shares[name] then kept = kept + 1 end
      sum = sum - (shares[name] or 0)
      shares[name] = whole(share, LIMITS.count)
      sum = sum + shares[name]
    end
  end
  -- If they exceed the total, an older writer has started counting again.
  if sum > failures then return {}, 0 end
  return shares, kept
end

local function text_of(shares)
  local entries = {}
  for name, share in pairs(shares) do entries[#entries + 1] = string.format("%s:%.0f", name, share) end
  table.sort(entries)
  return table.concat(entries, " ")
end

-- Numbers separated by spaces, each within its bounds; nil if one is not.
local function numbers_in(text, bounds)
  local found = {}
  for word in string.gmatch(#text <= LIMITS.text and text or "", "[^ ]+") do
    local between = bounds[#found + 1]
    found[#found + 1] = between and number(word, between[1], between[2])
    if not between or not found[#found] then return nil end
  end
  return #found == #bounds and found or nil
end

local MOMENT, SPAN = { LIMITS.year_2000_s, latest_s }, { 0, LIMITS.took_s }

-- The evidence of the calls of a run, including that of the batch.
local function evidence_after(text, run_since)
  local known = numbers_in(text, { MOMENT, MOMENT, SPAN, SPAN, SPAN })
  if known and known[3] < 1 then known = nil end
  local timed, began_s, took_s, longest_s = unpack(batch.evidence)
  if timed then
    began_s = math.min(began_s, latest_s)
    known = known or { began_s, run_since, 0, 0, 0 }
    known = {
      math.min(known[1], began_s), known[2], known[3] + timed,
      math.min(known[4] + took_s, LIMITS.took_s), math.min(math.max(known[5], longest_s), LIMITS.took_s),
    }
  end
  return known and string.format("%.6f %.6f %.6f %.6f %.6f", unpack(known)) or ""
end

-- Whether the fleet is being asked about this many failures: then successes are part of the answers.
local function is_asked(failures)
  local from, to = string.find(known.question, "^%d+ ")
  local asked = from and failures > 0 and numbers_in(string.sub(known.question, to + 1), { MOMENT, MOMENT, MOMENT, SPAN })
  return asked and now_ms / 1000 > asked[1] - 1 and now_ms / 1000 < asked[1] + LIMITS.held_s
end

-- Whether a run outlives the successes of the batch: they began before the failed calls, and say nothing of them.
local function outlives(evidence)
  local of_run = batch.are_timed and batch.last_begun_s > 0 and numbers_in(evidence, { MOMENT, MOMENT, SPAN, SPAN, SPAN })
  if not of_run or of_run[3] < 1 then return false end
  local ended_s = batch.last_success_s ~= 0 and batch.last_success_s or now_ms / 1000
  local acquitted = numbers_in(known.acquitted, { MOMENT, MOMENT })
  local is_rest = acquitted and ended_s - acquitted[1] < LIMITS.acquitted_s
  return not is_rest and batch.last_begun_s < of_run[1] and ended_s < of_run[2] + LIMITS.earlier_s
end

-- Count the runs after this many failures in a row; returns their new number.
local function count_runs(failures)
  local success_s, failure_s = batch.last_success_s, batch.first_failure_s
  local run, has = names_in(failures > 0 and known.run or "", RUN_KEPT)
  local shares, kept = shares_of(failures)
  local run_since = failures > 0 and number(known.run_since, 0, latest_s) or 0
  local refusals = math.min(whole(known.credit_refusals, LIMITS.count), failures)
  -- A late success that ended before the run began does not end it.
  local is_late = success_s ~= 0 and success_s < run_since - LATE_S
  local evidence, failed, is_new = failures > 0 and known.run_evidence or "", false, failures == 0
  local speaks_elsewhere = is_late or (batch.are_timed and is_asked(failures))
  local is_earlier = not speaks_elsewhere and outlives(evidence)
  local ends_run = not (speaks_elsewhere or is_earlier)
  local earlier = failures > 0 and whole(known.run_earlier, LIMITS.count) or 0
  local is_told = ends_run
  for _, each in ipairs(batch.runs) do
    local kind, count = each[1], each[2]
    if kind ~= "S" then
      is_told, failed = true, true
      if failures == 0 then run_since = failure_s > 0 and math.min(failure_s, latest_s) or now_s end
      failures = math.min(failures + count, LIMITS.count)
      if shares[reporter] or kept < LIMITS.share_kept then
        if not shares[reporter] then kept = kept + 1 end
        shares[reporter] = math.min((shares[reporter] or 0) + count, failures)
      end
      if kind == "C" then refusals = math.min(refusals + count, failures) end
      if #run < RUN_KEPT and not has[reporter] then
        run[#run + 1], has[reporter] = reporter, true
      end
    elseif ends_run then
      failures, run, has, refusals, shares, kept, evidence, is_new = 0, {}, {}, 0, {}, 0, "", true
      earlier = 0
    elseif is_earlier then
      earlier = earlier + count
    end
  end
  set("consecutive_failures", failures)
  set("run", table.concat(run, " "))
  set("run_shares", text_of(shares))
  set("run_evidence", failures == 0 and "" or failed and evidence_after(evidence, run_since) or evidence)
  if is_new then
    for _, field in ipairs({ "run_want", "question", "answers" }) do set(field, "") end
  end
  earlier = failures > 0 and math.min(earlier + batch.earlier, LIMITS.count) or 0
  set("run_earlier", earlier > 0 and earlier or "")
  set("run_since", failures > 0 and string.format("%.6f", run_since) or "")
  set("credit_refusals", refusals)
  return failures, is_told
end

-- The window with this batch, as "from:calls:failures:slow:reporters" for each step within its length.
local function window_with(calls, failures, slow, reach_s)
  local step, kept, names, has = now_s - now_s % STEP_S, {}, {}, {}
  for entry in string.gmatch(#known.window <= WINDOW_MOST and known.window or "", "%S+") do
    local from, c, f, s, members = string.match(entry, "^(%d+):(%d+):(%d+):(%d+):(%S*)$")
    from = whole(from or "", step)
    if from == step then
      names, has = names_in(members, RUN_KEPT)
      calls, failures, slow = calls + whole(c, LIMITS.count), failures + whole(f, LIMITS.count), slow + whole(s, LIMITS.count)
    elseif from > now_s - reach_s then
      kept[#kept + 1] = entry
    end
  end
  if failures + slow > 0 and #names < RUN_KEPT and not has[reporter] then names[#names + 1] = reporter end
  kept[#kept + 1] = string.format("%.0f:%.0f:%.0f:%.0f:%s", step, calls, failures, slow, table.concat(names, ","))
  return table.concat(kept, " ")
end

-- The valid entries of the ring of reporters, each as "name:batch:seconds ".
local function readable(ring)
  local entries = {}
  for entry, seen in string.gmatch(ring, "(%w+:%d+:(%d+) )") do
    if whole(seen, latest_s) > 0 then entries[#entries + 1] = entry end
  end
  return table.concat(entries)
end

-- The ring without the reporters that have been silent longest, the number of live ones, and where those begin.
local function ring_without_gone(ring)
  local _, kept = string.gsub(ring, " ", "")
  local from, at, live = 1, 1, kept
  while at <= #ring do
    local _, stop, seen = string.find(ring, "^%w+:%d+:(%d+) ", at)
    local seen_s = whole(seen or "", latest_s)
    if seen_s == 0 then
      -- The ring is damaged: valid entries stay, and all of them are live or will expire.
      ring = readable(string.sub(ring, from))
      local _, left = string.gsub(ring, " ", "")
      from, at, live, kept = 1, 1, left, left
    elseif at == from and (kept > REPORTERS_KEPT or seen_s <= now_s - BATCH_LIFE_S) then
      from, kept = stop + 1, kept - 1
      at, live = from, live - 1
    elseif seen_s <= now_s - REPORTER_LIFE_S then
      at, live = stop + 1, live - 1
    else
      break
    end
  end
  return string.sub(ring, from), live, at - from + 1
end

-- Whether a run of failures goes on.
local function is_in_run()
  return whole(known.consecutive_failures, LIMITS.count) > 0
end

-- The number of reporters that make calls and that no question reaches: only that of a worker library begins with "w",
-- and that of a health check with "c".
local function mute_in(ring)
  local _, mute = string.gsub(" " .. ring, " [^wc ]", "")
  return mute
end

-- Whether an override decides: then nothing counts, except in forced_closed.
local function is_overridden()
  if known.override == "" or #known.override > LIMITS.json then return false end
  local ok, row = pcall(cjson.decode, known.override)
  if not ok or type(row) ~= "table" or (row.kind ~= "disabled" and row.kind ~= "forced_open") then return false end
  return number(tostring(row["until"]), LIMITS.year_2000_s, now_s + LIMITS.override_s) ~= nil
end

-- Whether calls may go and count, as while the breaker is closed.
local function are_calls_counted()
  -- An older writer opens by this flag alone: later results must not clear it.
  local is_open = known.breaker == "open" or known.breaker == "half_open"
  return not (is_open or string.lower(known.circuit_breaker_open) == "true" or is_overridden())
end

-- Whether the results decide anything: only if their calls began in the present epoch.
local function decides(epoch)
  return batch.epoch == 0 or (batch.epoch > 0 and (epoch == 0 or batch.epoch == epoch))
end

-- Count the deciding results; returns whether listeners need to know.
local function count(epoch)
  local failed_before = whole(known.consecutive_failures, LIMITS.count)
  local failures, is_told = count_runs(failed_before)
  if epoch == 0 then
    -- From our clock: an epoch lost with the data is never used again.
    set("epoch", math.max(now_ms, epoch_of(string.format("%.0f", batch.epoch)) + 1))
    set("begun", known.epoch)
  end
  set("breaker", "closed")
  set("circuit_breaker_open", "false")
  if #batch.window > 0 then set("window", window_with(unpack(batch.window))) end
  for field, value in pairs(batch.fields) do
    if string.sub(field, 1, 5) == "last_" then
      if not is_later(known[field] or "", value) then set(field, value) end
    elseif is_told then
      set(field, value)
    end
  end
  return failures >= SUSPECT and failed_before < SUSPECT
end

-- The rate of calls over the last minute, or over the pause after it: after a sleep it starts again. An outage is no
-- such pause: the rate before it is kept, and at least half of it is assumed for one minute after it.
-- Returns whether a minute begins.
local function measure()
  if not are_calls_counted() then
    set("calls_counted", "")
    set("calls_since", "")
    return false
  end
  local calls = whole(known.calls_counted, LIMITS.count) + (batch.counters.total_calls or 0)
  local since_s = whole(known.calls_since, latest_s)
  local begins = since_s == 0
  if begins then since_s = now_s end
  if now_s - since_s >= MINUTE_S then
    local minutes = (now_s - since_s) / MINUTE_S
    local before = number(known.calls_per_minute, 0, LIMITS.calls) or 0
    set("calls_per_minute", string.format("%.1f", math.max(calls / minutes, before / 2 ^ minutes)))
    calls, since_s, begins = 0, now_s, true
  end
  set("calls_counted", calls)
  set("calls_since", since_s)
  return begins
end

-- Record the batch's news of single models, and drop models that are no longer worth keeping.
-- Returns the kept ones as stored, and whether listeners need to know of one.
local function models_with(found, runs)
  local entries, told, is_news, is_full = {}, {}, false, #found > 2 * LIMITS.kept
  for i = 1, #found, 2 do entries[found[i]] = found[i + 1] end
  for name, run in pairs(runs) do
    -- Dropped entries do no harm until the next one comes.
    is_full = is_full or not entries[name]
    local model = model_with(model_of(entries[name] or "", now_s), run, now_s)
    is_news = is_news or run.until_s > now_s or (run.failures > 0 and model.failures >= SUSPECT)
    entries[name] = entry_of(model)
    told[#told + 1] = name
    told[#told + 1] = entries[name]
  end
  in_chunks(told, function(...) return redis.call("HSET", KEYS[4], ...) end)
  local gone = is_full and forgotten(entries, now_s) or {}
  in_chunks(gone, function(...) return redis.call("HDEL", KEYS[4], ...) end)
  if #told > 0 then redis.call("EXPIRE", KEYS[4], MODELS_LIFE_S) end
  local kept = {}
  for name, entry in pairs(entries) do
    kept[#kept + 1] = name
    kept[#kept + 1] = entry
  end
  return kept, is_news
end

local models = try("HGETALL", KEYS[4])
local verdict, is_news = "counted", false
local epoch = epoch_of(known.epoch)
local from, to, last = string.find(known.reporters, reporter .. ":(%d+):%d+ ")
local last_seq = from and tonumber(last) <= EXACT and tonumber(last) or 0
local is_numbered = batch.seq ~= cjson.null
if epoch == 0 and batch.knows_more then
  verdict = "lost"
elseif is_numbered and from and last_seq >= batch.seq then
  verdict = "repeated"
else
  local ring = known.reporters
  if from then ring = string.sub(ring, 1, from - 1) .. string.sub(ring, to + 1) end
  local live, first
  local seq = is_numbered and batch.seq or math.min(last_seq + 1, EXACT)
  ring, live, first = ring_without_gone(ring .. string.format("%s:%.0f:%s ", reporter, seq, time[1]))
  -- All processes must know of an older writer: from now on they poll.
  local is_first = is_written_over(epoch) and known.older_writer == ""
  if is_written_over(epoch) then set("older_writer", now_s) end
  local is_counted = are_calls_counted() and decides(epoch)
  if is_counted then is_news = count(epoch) else verdict = "late" end
  -- While the breaker is not closed, its writes still have to be evaluated.
  if is_counted then set("known", mark()) end
  set("reporters", ring)
  set("live_reporters", live)
  set("mute_reporters", is_in_run() and mute_in(string.sub(ring, first)) or "")
  local begins = measure() or epoch == 0
  in_chunks(changed, function(...) return redis.call("HSET", state, ...) end)
  -- Once a minute is enough for a lifetime of ten minutes.
  if is_counted and known.override == "" and begins then
    -- At least as long as a rate limit.
    redis.call("EXPIRE", state, batch.life_s, "GT")
    redis.call("EXPIRE", state, batch.life_s, "NX")
  end

  add(KEYS[2], batch.counters)
  local runs = batch.epoch >= 0 and batch.models or {}
  if models and (next(runs) or #models > 2 * LIMITS.kept) then
    local of_models
    models, of_models = models_with(models, runs)
    is_news = is_news or of_models
  end
  if in_chunks(batch.errors, function(...) return try("LPUSH", KEYS[3], ...) end) then
    redis.call("LTRIM", KEYS[3], 0, ERRORS_KEPT - 1)
    redis.call("EXPIRE", KEYS[3], ERRORS_LIFE_S)
  end
  if is_news or is_first then
    local news = { scope = batch.scope, epoch = known.epoch, breaker = "closed", open_until = "" }
    if not may("PUBLISH", batch.channel, cjson.encode(news)) then redis.call("HSET", state, "older_writer", now_s) end
  end
end

local values = {}
for i = 1, returned do values[i] = known[FIELDS[i]] ~= "" and known[FIELDS[i]] end
local older_s = whole(known.older_writer, latest_s)
return { verdict, time[1], time[2], values, models or {}, older_s > 0 and tostring(now_s - older_s) or "", foreign, optional }

-- Prefix of the scripts that write the history. Its ids are our epochs and only grow: a foreign entry behind our newest
-- one, with a time or another number as id, would block all later entries, so it is removed.
local HISTORY_KEPT = 10000
-- None of our epochs is further ahead of the clock: see rules/codec.py.
local HISTORY_AHEAD_MS = 24 * 3600 * 1000
-- Our entries have five fields; an entry with more than this many words is foreign.
local WORDS_MOST = 100
local PHASES = { closed = true, open = true, half_open = true }

local function is_ours(entry, latest_ms)
  local id, words, known = entry[1], entry[2], {}
  if #words > WORDS_MOST or tonumber(string.match(id, "^%d+")) > latest_ms then return false end
  for i = 1, #words, 2 do known[words[i]] = words[i + 1] end
  return PHASES[known.from] and PHASES[known.to] and known.at ~= nil
end

-- Remove foreign entries behind our newest one, or from the refused id on. Deleting the entry alone would not help,
-- because the stream keeps its last id. Returns whether there was one.
local function mend(key, refused)
  local latest_ms = redis.call("TIME")[1] * 1000 + HISTORY_AHEAD_MS
  local newer, foreign_ones = redis.pcall("XREVRANGE", key, "+", refused or "-"), 0
  if newer.err then return false end
  for _, entry in ipairs(newer) do
    if is_ours(entry, latest_ms) then break end
    foreign_ones = foreign_ones + 1
  end
  -- Refused because of an entry of ours: it exists already, or comes too late.
  if refused and foreign_ones < #newer or not refused and foreign_ones == 0 then return false end
  local all = redis.pcall("XRANGE", key, "-", "+")
  if all.err or type(redis.pcall("DEL", key)) == "table" then return false end
  for i = 1, #all - foreign_ones do
    local id, words = all[i][1], all[i][2]
    if #words <= WORDS_MOST then redis.call("XADD", key, id, unpack(words)) end
  end
  return true
end

-- The result: the id, or the error.
local function append(key, id, fields)
  local function add() return redis.pcall("XADD", key, "MAXLEN", "~", HISTORY_KEPT, id, unpack(fields)) end
  local added = add()
  local err = type(added) == "table" and added.err or ""
  -- After the highest possible id, Redis says "exhausted".
  local is_refused = string.find(err, "equal or smaller", 1, true) or string.find(err, "exhausted", 1, true)
  return is_refused and mend(key, id) and add() or added
end


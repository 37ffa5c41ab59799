-- Prefix of count.lua: the entries in the hash of single models, as in rules/models.py.
-- Entries are deleted in chunks of this size, so that a far too large hash does not block Redis.
local LOOKED_AT = 2000

local function word(text)
  return #text <= 64 and string.match(text, "^[%w_]+$") or nil
end

-- Decode an entry. Entries are flat, so that Lua and Python read the same from any input.
local function model_of(text, now_s)
  local model = { seen_s = 0, failures = 0, failed_s = 0, until_s = 0, reason = "" }
  if #text > LIMITS.entry then return model end
  for name, quote, value in string.gmatch(text, '"([%a_]+)"%s*:%s*("?)([^",{}%[%]]*)') do
    value = string.match(value, "^%s*(.-)%s*$")
    if name == "failures" then
      model.failures = whole(value, LIMITS.failures)
    elseif name == "seen_s" or name == "failed_s" then
      model[name] = number(value, LIMITS.year_2000_s, now_s + LIMITS.clock_s) or 0
    elseif name == "until_s" then
      model.until_s = number(value, LIMITS.year_2000_s, now_s + LIMITS.wait_s) or 0
    elseif name == "reason" and quote ~= "" then
      model.reason = word(value) or ""
    end
  end
  return model
end

-- Encode an entry, without empty fields.
local function entry_of(model)
  local parts = { string.format('"seen_s":%.0f', model.seen_s) }
  if model.failures > 0 then parts[#parts + 1] = string.format('"failures":%.0f', model.failures) end
  if model.failed_s > 0 then parts[#parts + 1] = string.format('"failed_s":%.0f', model.failed_s) end
  if model.until_s > 0 then parts[#parts + 1] = string.format('"until_s":%.3f', model.until_s) end
  if model.reason ~= "" then parts[#parts + 1] = string.format('"reason":"%s"', model.reason) end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- A model after the results of a batch.
local function model_with(model, run, now_s)
  model.seen_s = now_s
  model.failures = math.min(run.failures + (run.ended and 0 or model.failures), LIMITS.failures)
  if run.failures > 0 then model.failed_s = now_s end
  -- The later time wins: a shorter wait never takes back a longer one.
  model.until_s = math.max(model.until_s, math.min(run.until_s, now_s + LIMITS.wait_s))
  model.reason = word(run.reason) or model.reason
  return model
end

-- If there are more than *most*, move those after the first *left*, most relevant first, to *gone*.
local function cut(names, most, left, ranks, gone)
  if #names <= most then return end
  table.sort(names, function(a, b) return ranks[a] > ranks[b] or (ranks[a] == ranks[b] and a < b) end)
  for i = left + 1, #names do gone[#gone + 1] = names[i] end
end

-- Remove entries that are not worth keeping, by name; returns their names.
local function forgotten(entries, now_s)
  local troubled, fine, ranks, gone, looked_at = {}, {}, {}, {}, 0
  for name, text in pairs(entries) do
    looked_at = looked_at + 1
    if looked_at > LOOKED_AT then break end
    local model = model_of(text, now_s)
    local waits = model.until_s > now_s
    ranks[name] = model.seen_s + (waits and now_s or 0)
    if #name > LIMITS.name or not (waits or model.seen_s > now_s - LIMITS.seen_s) then
      gone[#gone + 1] = name
    elseif waits or model.failures > 0 then
      troubled[#troubled + 1] = name
    else
      fine[#fine + 1] = name
    end
  end
  cut(fine, LIMITS.fine, LIMITS.fine, ranks, gone)
  -- Some room, so that not every new entry causes a sort.
  local most = LIMITS.kept - LIMITS.fine
  cut(troubled, most, math.floor(0.9 * most), ranks, gone)
  for _, name in ipairs(gone) do entries[name] = nil end
  return gone
end


-- Prefix of count.lua: reads arbitrary values as rules/parsing.py does, so that Lua and Python agree.

-- A count from 0 to *most*, else 0.
local function whole(text, most)
  local count = #text <= 15 and string.find(text, "^%d+$") and tonumber(text) or 0
  return count <= most and count or 0
end

-- A finite number from *least* to *most*, else nil. tonumber alone accepts "nan", "1e400" and "0x10".
local function number(text, least, most)
  if #text > 400 or not string.find(text, "^%s*[+-]?%.?%d") or string.find(text, "[^%d%.eE+%-%s]") then return nil end
  local found = tonumber(text)
  return found and found >= least and found <= most and found or nil
end

-- The first *most* distinct names in a text.
local function names_in(text, most)
  local names, has = {}, {}
  for name in string.gmatch(text, "%w+") do
    if #names >= most then break end
    if not has[name] then names[#names + 1] = name end
    has[name] = true
  end
  return names, has
end

-- Call with chunks of a list: unpack takes only some thousands.
local CHUNK = 1000
local function in_chunks(list, call)
  for from = 1, #list, CHUNK do
    if not call(unpack(list, from, math.min(from + CHUNK - 1, #list))) then return false end
  end
  return #list > 0
end


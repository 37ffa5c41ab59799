-- Put before every script: whether a key is ours to use. What somebody else keeps there is never touched.
-- A foreign state ends the script; of the other keys, the script does without and names them in its answer.
local foreign = {}

local function ours(key, kind)
  local found = redis.call("TYPE", key)["ok"]
  if found == kind or found == "none" then return true end
  foreign[#foreign + 1] = key
  return false
end

if not ours(KEYS[1], "hash") then return redis.error_reply("FOREIGN " .. KEYS[1]) end

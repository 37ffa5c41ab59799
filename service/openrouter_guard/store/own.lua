-- Put before every script: what somebody else keeps under a key of ours is never touched, and stops only what needs it.
-- The state itself comes first in each script, by redis.call: if it is foreign, nothing has been changed.
local foreign = {}

-- As redis.call, but nil where the key (the first argument of the command) holds a value of another type.
local function try(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= "table" or not answer.err then return answer end
  if not string.find(answer.err, "WRONGTYPE", 1, true) then return redis.call(command, key, ...) end
  foreign[#foreign + 1] = key
  return nil
end


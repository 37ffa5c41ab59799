-- Put before every script: what somebody else keeps under a key of ours is never touched, and stops only what needs it.
-- The state itself comes first in each script, by redis.call: if it is foreign, nothing has been changed.
-- Each script tells of both at the end of its answer.
local foreign, optional = {}, {}

-- As redis.call, but nil where the key (the first argument of the command) holds a value of another type.
local function try(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= "table" or not answer.err then return answer end
  if not string.find(answer.err, "WRONGTYPE", 1, true) then return redis.call(command, key, ...) end
  foreign[#foreign + 1] = key
  return nil
end

-- What came of a command on a key that must not keep the rest from happening: its answer, or nil. Of each command so
-- tried is told what is wrong with it; "" means: nothing.
local function told(command, key, answer)
  local err = type(answer) == "table" and answer.err
  if err and string.find(err, "WRONGTYPE", 1, true) then
    foreign[#foreign + 1] = key
    return nil
  end
  -- The history has it already, or a later one: it is written once, by whoever comes first.
  local is_there = err and string.find(err, "equal or smaller", 1, true)
  optional[#optional + 1] = command
  optional[#optional + 1] = not is_there and err or ""
  return not err and answer or nil
end

local function may(command, key, ...)
  return told(command, key, redis.pcall(command, key, ...))
end

-- Prefix of every script: it never touches a foreign value under one of our keys, and does all that needs no such key.
-- Each script reads the state first, with redis.call: if it is foreign, nothing has been changed.
-- Each script ends its answer with this report: the foreign key, and the refused commands.
local foreign, optional = {}, {}

-- Like redis.call, but nil if the key (the command's first argument) holds another type.
local function try(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= "table" or not answer.err then return answer end
  if not string.find(answer.err, "WRONGTYPE", 1, true) then return redis.call(command, key, ...) end
  foreign[#foreign + 1] = key
  return nil
end

-- Run a command whose failure must not stop the rest: returns its answer, or nil. The report has the error of each
-- such command; "" means none.
local function told(command, key, answer)
  local err = type(answer) == "table" and answer.err
  if err and string.find(err, "WRONGTYPE", 1, true) then
    foreign[#foreign + 1] = key
    return nil
  end
  -- The history has it, or a later one, already: the first process writes it.
  local is_there = err and string.find(err, "equal or smaller", 1, true)
  optional[#optional + 1] = command
  optional[#optional + 1] = not is_there and err or ""
  return not err and answer or nil
end

local function may(command, key, ...)
  return told(command, key, redis.pcall(command, key, ...))
end

-- Put something into the history that is no transition.
-- KEYS[1]  the history stream
-- ARGV[1]  its id
-- ARGV[2]  its fields as JSON list
-- Returns  1 if it is there now, 0 if it or a later one was there before
local added = append(KEYS[1], ARGV[1], cjson.decode(ARGV[2]))
if type(added) ~= "table" or not added.err then return 1 end
if string.find(added.err, "equal or smaller", 1, true) then return 0 end
return added

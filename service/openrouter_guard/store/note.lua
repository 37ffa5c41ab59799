-- Add an entry that is no transition to the history.
-- KEYS[1]  the history stream
-- ARGV[1]  its id
-- ARGV[2]  its fields as JSON list
-- Returns  1 if it was added, 0 if it or a later one exists already
local added = append(KEYS[1], ARGV[1], cjson.decode(ARGV[2]))
if type(added) ~= "table" or not added.err then return 1 end
if string.find(added.err, "equal or smaller", 1, true) then return 0 end
return added

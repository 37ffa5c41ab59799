-- Take out of the history what is not ours and would keep out all that comes.
-- KEYS[1]  the history stream
-- Returns  1 if there was something, else 0
return mend(KEYS[1]) and 1 or 0

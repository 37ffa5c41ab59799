-- Remove foreign entries that would block later ones from the history.
-- KEYS[1]  the history stream
-- Returns  1 if there was one, else 0
return mend(KEYS[1]) and 1 or 0

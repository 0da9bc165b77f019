-- Every run that the server knows.
-- KEYS: what every run says, when each was last heard of
-- Returns {the time in seconds, then id, what it said, and when, of each}.
local said, heard = redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])
local at, found = {}, {redis.call('TIME')[1]}
for i = 1, #heard, 2 do at[heard[i]] = heard[i + 1] end
for i = 1, #said, 2 do
  table.insert(found, said[i])
  table.insert(found, said[i + 1])
  table.insert(found, at[said[i]] or '0')
end
return found

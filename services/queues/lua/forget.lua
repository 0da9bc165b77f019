-- An episode is over, its ledger and dead letters are elsewhere: its state and counters stay.
-- KEYS: episode, dead letters, then what is let go as a whole
-- ARGV: episode number
-- Returns 1, or 0 where the server fell back to before its end: nothing is let go then.
if redis.call('HGET', KEYS[1], 'state') ~= 'COMPLETED' then return 0 end
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do
  if entry[2][6] == ARGV[1] then redis.call('XDEL', KEYS[2], entry[1]) end
end
redis.call('UNLINK', unpack(KEYS, 3))
return 1

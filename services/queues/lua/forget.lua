-- An episode is over, its ledger and dead letters are elsewhere: its state and counters stay.
-- KEYS: dead letters, then what is let go as a whole
-- ARGV: episode number
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  if entry[2][6] == ARGV[1] then redis.call('XDEL', KEYS[1], entry[1]) end
end
redis.call('UNLINK', unpack(KEYS, 2))
return ''

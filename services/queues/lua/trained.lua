-- A checkpoint holds an episode's pairs: record it, forget them, give their credits back.
-- KEYS: pairs of the episode, episode, ledger, credits in use
-- ARGV: episode number, weight version
-- Returns how many pairs; 0 the second time.
local pairs_kept = redis.call('XRANGE', KEYS[1], '-', '+')
for _, entry in ipairs(pairs_kept) do
  happened(KEYS[3], KEYS[2], 'trained', entry[2][2], ARGV[1], ARGV[2])
end
redis.call('DEL', KEYS[1])
redis.call('DECRBY', KEYS[4], #pairs_kept)
return #pairs_kept

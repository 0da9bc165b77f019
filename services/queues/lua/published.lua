-- Every engine holds the episode's weights.
-- KEYS: episode, ledger
-- ARGV: episode number, weight version
-- Returns 1, or 0 when it was recorded before.
if redis.call('HGET', KEYS[1], 'weight_version') == ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'weight_version', ARGV[2])
redis.call('XADD', KEYS[2], '*', 'kind', 'published', 'id', '', 'episode', ARGV[1], 'detail', ARGV[2])
return 1

-- Every engine holds the episode's weights.
-- KEYS: account (5)
-- ARGV: weight version
-- Returns 1, or 0 when it was recorded before.
local account = account_at(1)
if redis.call('HGET', account.episode, 'weight_version') == ARGV[1] then return 0 end
redis.call('HSET', account.episode, 'weight_version', ARGV[1])
redis.call('XADD', account.ledger, '*', 'kind', 'published', 'id', '', 'detail', ARGV[1])
return 1

-- Put prompts on their stream, each once, while the episode samples and credits last.
-- KEYS: prompts, episode, ids dispatched, ledger, credits in use
-- ARGV: credits, episode number, then id and payload of each prompt
-- Returns {sent, known, refused}; sent + known is how many prompts, from the first, are done.
if redis.call('HGET', KEYS[2], 'state') ~= 'SAMPLING' then return {0, 0, 'state'} end
local limit, number = tonumber(ARGV[1]), ARGV[2]
local used = tonumber(redis.call('GET', KEYS[5]) or '0')
local sent, known = 0, 0
for i = 3, #ARGV, 2 do
  local id, payload = ARGV[i], ARGV[i + 1]
  if redis.call('SISMEMBER', KEYS[3], id) == 1 then
    known = known + 1
  elseif used >= limit then
    return {sent, known, 'credits'}
  else
    redis.call('SADD', KEYS[3], id)
    redis.call('XADD', KEYS[1], '*', 'id', id, 'payload', payload)
    used = redis.call('INCR', KEYS[5])
    happened(KEYS[4], KEYS[2], 'dispatched', id, number, '')
    sent = sent + 1
  end
end
return {sent, known, ''}

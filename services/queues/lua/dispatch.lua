-- Put prompts on their stream, each once, while the episode samples and credits last.
-- KEYS: prompts, account (4)
-- ARGV: credits, episode number, then id and payload of each prompt
-- Returns {sent, known, refused}; sent + known is how many prompts, from the first, are done.
local account = account_at(2)
if redis.call('HGET', account.episode, 'state') ~= 'SAMPLING' then return {0, 0, 'state'} end
local free = tonumber(ARGV[1]) - tonumber(redis.call('GET', account.credits) or '0')
local sent, known = 0, 0
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  if redis.call('HEXISTS', account.steps, id) == 1 then
    known = known + 1
  elseif sent >= free then
    return {sent, known, 'credits'}
  else
    redis.call('XADD', KEYS[1], '*', 'id', id, 'episode', ARGV[2], 'payload', ARGV[i + 1])
    happened(account, 'dispatched', id, '')
    sent = sent + 1
  end
end
return {sent, known, ''}

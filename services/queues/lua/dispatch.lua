-- Put prompts on their stream, each once and in order, while the episode samples and credits last.
-- In order: a caller that knows of a dispatch that the server lost since begins anew where that was.
-- KEYS: prompts, account (4)
-- ARGV: credits, episode number, then id, index, field and value of each prompt: payloads.py
-- Returns {sent, known, refused}; sent + known is how many prompts, from the first, are done.
local account = account_at(2)
if redis.call('HGET', account.episode, 'state') ~= 'SAMPLING' then return {0, 0, 'state'} end
local free = tonumber(ARGV[1]) - tonumber(redis.call('GET', account.credits) or '0')
local next_ = tonumber(redis.call('HGET', account.episode, 'dispatched') or '0')
local sent, known = 0, 0
for i = 3, #ARGV, 4 do
  local id = ARGV[i]
  if redis.call('HEXISTS', account.steps, id) == 1 then
    known = known + 1
  elseif tonumber(ARGV[i + 1]) > next_ + sent then
    return {sent, known, 'order'}
  elseif sent >= free then
    return {sent, known, 'credits'}
  else
    redis.call('XADD', KEYS[1], '*', 'id', id, 'episode', ARGV[2], ARGV[i + 2], ARGV[i + 3])
    happened(account, 'dispatched', id, '')
    sent = sent + 1
  end
end
return {sent, known, ''}

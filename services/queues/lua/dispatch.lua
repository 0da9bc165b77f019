-- Put prompts on their stream, each once and in order, while the episode samples and credits last.
-- In order: a caller that knows of a dispatch that the server lost since begins anew where that was.
-- KEYS: prompts, account (5)
-- ARGV: credits, episode number, then id, index, field and value of each prompt: payloads.py
-- Returns {sent, known, refused}; sent + known is how many prompts, from the first, are done.
local account = account_at(2)
local row = redis.call('HMGET', account.episode, 'state', 'dispatched', 'in_flight')
if row[1] ~= 'SAMPLING' then return {0, 0, 'state'} end
local free = tonumber(ARGV[1]) - tonumber(redis.call('GET', account.credits) or '0')
local next_ = tonumber(row[2] or '0')
local sent, known, refused = 0, 0, ''
for i = 3, #ARGV, 4 do
  local id = ARGV[i]
  if step_of(account, id) then
    known = known + 1
  elseif tonumber(ARGV[i + 1]) > next_ + sent then
    refused = 'order'
    break
  elseif sent >= free then
    refused = 'credits'
    break
  else
    redis.call('XADD', KEYS[1], '*', 'id', id, 'episode', ARGV[2], ARGV[i + 2], ARGV[i + 3])
    happened(account, 'dispatched', id, '')
    sent = sent + 1
  end
end
book(account)
-- The next look is worth it when an eighth of these has ended.
local in_flight = tonumber(row[3] or '0') + sent
redis.call('HSET', account.episode, 'more_at', in_flight - math.max(1, math.floor(in_flight / 8)))
return {sent, known, refused}

-- A checkpoint holds an episode: record what it trained and what it left out, by prompt.
-- KEYS: pairs of the episode, account (4)
-- ARGV: weight version, '1' when these are the last, then id and '' or the reason why it was left
--       out
-- Returns {pairs trained now, id and last step of the first that cannot have been trained}. Once
-- no pair is left the stream of pairs is let go.
local account, now = account_at(2), 0
-- An episode that is over was committed; its ledger may be in the artifact by now.
if redis.call('HGET', account.episode, 'state') == 'COMPLETED' then return {0} end
for i = 3, #ARGV, 2 do
  local id, reason = ARGV[i], ARGV[i + 1]
  local step = redis.call('HGET', account.steps, id)
  local after = reason == '' and 'trained' or 'dropped'
  if step == 'paired' then
    happened(account, after, id, reason == '' and ARGV[1] or reason)
    if reason == '' then now = now + 1 end
  elseif step ~= after then
    return {now, id, step or 'nothing'}
  end
end
if ARGV[2] == '1' then
  local left = redis.call('HMGET', account.episode, 'paired', 'trained')
  if (left[1] or '0') ~= (left[2] or '0') then
    return {now, '', (left[1] or '0') .. ' paired, ' .. (left[2] or '0') .. ' trained'}
  end
  redis.call('UNLINK', KEYS[1])
end
return {now}

-- A checkpoint holds an episode: record what became of each of its prompts. The checkpoint is the
-- truth: where the server lost what led there (its last second, or more), and maybe saw the prompt
-- done once more since, the prompt is "restored" from there.
-- KEYS: pairs of the episode, prompts, tries of them, rollouts, tries of them, account (5)
-- ARGV: group, weight version, '1' when these are the last, then id and '' (trained) or the reason
--       why it was dropped
-- Returns {pairs trained now, id and last step of the first that contradicts the checkpoint}. Once
-- no pair is left the stream of pairs is let go.
local account, now, restored = account_at(6), 0, {}
local state = redis.call('HGET', account.episode, 'state')
-- An episode that is over was committed; its ledger may be in the artifact by now.
if state == 'COMPLETED' then return {0} end

for i = 4, #ARGV, 2 do
  local id, reason = ARGV[i], ARGV[i + 1]
  local step, why = step_of(account, id)
  local goal = reason == '' and 'trained' or 'dropped'
  if step == 'trained' and goal == 'dropped' then
    book(account)
    return {now, id, step}
  end
  if step ~= goal or (goal == 'dropped' and why ~= reason) then
    if step ~= 'paired' then
      restored[id] = true
      happened(account, 'restored', id, step or '')
    end
    happened(account, goal, id, reason == '' and ARGV[2] or reason)
    if goal == 'trained' then now = now + 1 end
  end
end
book(account)

-- What was restored may be waiting to be done once more.
if next(restored) then
  for at = 2, 4, 2 do
    for _, entry in ipairs(redis.call('XRANGE', KEYS[at], '-', '+')) do
      if restored[entry[2][2]] then finish(KEYS[at], ARGV[1], entry[1], KEYS[at + 1]) end
    end
  end
end

if ARGV[3] == '1' then
  local left = redis.call('HMGET', account.episode, 'paired', 'trained', 'in_flight')
  for i = 1, 3 do left[i] = left[i] or '0' end
  if left[1] ~= left[2] or left[3] ~= '0' then
    local counted = left[1] .. ' paired, ' .. left[2] .. ' trained, ' .. left[3] .. ' in flight'
    return {now, '', counted}
  end
  redis.call('UNLINK', KEYS[1])
  redis.call('HSET', account.episode, 'committed', ARGV[2])
  if state ~= 'TRAINING' and state ~= 'PUBLISHING' then
    redis.call('HSET', account.episode, 'state', 'TRAINING')
  end
  announce(account.changes)
end
return {now}

-- Items that kept failing are tried again as if they never had: back on their stream, once each.
-- Only while their episode is still sampled, so that nothing comes to one that is being trained.
-- KEYS: dead letters, prompts, rollouts, account (5)
-- ARGV: episode number, then the entry of each of its dead letters
-- Returns {how many went back, state of the episode}.
local account, replayed = account_at(4), 0
local state = redis.call('HGET', account.episode, 'state') or ''
if state ~= 'SAMPLING' and state ~= 'PAUSING' and state ~= 'PAUSED' then return {0, state} end
for i = 2, #ARGV do
  local found = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if found then
    local letter, fields = {}, found[2]
    for at = 1, #fields, 2 do letter[fields[at]] = fields[at + 1] end
    local _, reason = step_of(account, letter.id)
    if letter.episode == ARGV[1] and reason == 'DEAD_LETTER' then
      local stream = letter.stream == 'prompts' and KEYS[2] or KEYS[3]
      -- The payload, or where it lies: the last field here and there.
      redis.call('XADD', stream, '*', 'id', letter.id, 'episode', letter.episode,
        fields[#fields - 1], fields[#fields])
      redis.call('XDEL', KEYS[1], ARGV[i])
      happened(account, 'replayed', letter.id, letter.stream)
      replayed = replayed + 1
    end
  end
end
book(account)
if replayed > 0 then announce(account.changes) end
return {replayed, state}

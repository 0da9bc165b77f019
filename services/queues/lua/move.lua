-- Move an episode to another state, if it is still in the state the caller saw.
-- KEYS: episode, answers by request id, the episode before, announcements
-- ARGV: request id ('' for a change that nobody repeats), operation, state seen, state to move to,
--       then fields to set and their values
-- Returns {outcome, answer}: "done" or "repeated" with the JSON list [operation, field, value, ...]
-- of the episode after the move, "changed" with the state it is in by now, or "refused" with why.
local request, from, to = ARGV[1], ARGV[3], ARGV[4]
local answered = request ~= '' and redis.call('HGET', KEYS[2], request)
if answered then return {'repeated', answered} end
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= from then return {'changed', state or ''} end
if to == 'TRAINING' then
  local row = redis.call('HMGET', KEYS[1], 'planned', 'dispatched', 'in_flight')
  if row[1] ~= (row[2] or '0') or (row[3] or '0') ~= '0' then
    return {'refused', 'has prompts that are still to be sampled'}
  end
elseif to == 'COMPLETED' then
  -- What a server lost of its last second is then after the last that is COMPLETED.
  local before = redis.call('HGET', KEYS[3], 'state')
  if before and before ~= 'COMPLETED' then
    return {'refused', 'comes after one that is not completed yet'}
  end
  -- Of an episode without a pair its counters do not tell.
  local row = redis.call('HMGET', KEYS[1], 'paired', 'trained', 'committed')
  if not row[3] or (row[1] or '0') ~= (row[2] or '0') then
    return {'refused', 'is in no checkpoint that is known'}
  end
end
redis.call('HSET', KEYS[1], 'state', to)
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
settle(KEYS[1], KEYS[4])
announce(KEYS[4])
local answer = redis.call('HGETALL', KEYS[1])
table.insert(answer, 1, ARGV[2])
answer = cjson.encode(answer)
if request ~= '' then redis.call('HSET', KEYS[2], request, answer) end
return {'done', answer}

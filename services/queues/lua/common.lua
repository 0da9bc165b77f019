-- Put before every other script (see client.py).

-- One event of one item: a line of the ledger and a step of the episode's counter.
local function happened(ledger, episode, kind, id, number, detail)
  redis.call('XADD', ledger, '*', 'kind', kind, 'id', id, 'episode', number, 'detail', detail)
  local counter = kind
  if kind == 'dropped' then counter = 'dropped:' .. detail end
  redis.call('HINCRBY', episode, counter, 1)
  if kind == 'dispatched' then
    redis.call('HINCRBY', episode, 'in_flight', 1)
  elseif kind == 'paired' or kind == 'dropped' then
    redis.call('HINCRBY', episode, 'in_flight', -1)
  end
end

-- An episode that is pausing is paused once nothing of it is in flight.
local function settle(episode)
  if redis.call('HGET', episode, 'state') == 'PAUSING'
    and tonumber(redis.call('HGET', episode, 'in_flight') or '0') <= 0 then
    redis.call('HSET', episode, 'state', 'PAUSED')
  end
end

-- Take over items that were delivered and never finished. XAUTOCLAIM does not say how often an
-- item was delivered, so this is XPENDING and XCLAIM in one step.
-- KEYS: input
-- ARGV: group, consumer, idle ms of an abandoned item, when the caller opened its queues (ms of
--       this server's clock: what its consumer name took earlier, a dead predecessor took), count
-- Returns {entry, payload, deliveries, consumer that held it} of each.
local group, consumer, count = ARGV[1], ARGV[2], tonumber(ARGV[5])
local taken = {}
local function claim(pending, idle)
  for _, item in ipairs(pending) do
    if #taken >= count then return end
    local entry = redis.call('XCLAIM', KEYS[1], group, consumer, idle, item[1])[1]
    if entry then
      table.insert(taken, {item[1], entry[2][4], item[4] + 1, item[2]})
    end
  end
end
claim(redis.call('XPENDING', KEYS[1], group, 'IDLE', ARGV[3], '-', '+', count), ARGV[3])
local now = redis.call('TIME')
local older = math.max(now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[4] + 1, 1)
claim(redis.call('XPENDING', KEYS[1], group, 'IDLE', older, '-', '+', count, consumer), older)
return taken

-- Take over items that were delivered and never finished. XAUTOCLAIM does not say who held an
-- item, so this is XPENDING and XCLAIM in one step.
-- KEYS: input, tries of its items, consumers taken for dead
-- ARGV: group, consumer, idle ms of an abandoned item, count, then every entry the caller holds:
--       what its consumer name took beside these, a dead predecessor took, or a commit was lost
-- Returns {entry, id, episode, field and value (see payloads.py), deaths, consumer that held it} of
-- each; the error FENCED for a consumer whose items were given back.
--
-- An item that two workers died with comes alone, without another such: so the one that ends its
-- workers is found, and those that were only near it are not blamed.
local group, consumer, count = ARGV[1], ARGV[2], tonumber(ARGV[4])
if redis.call('SISMEMBER', KEYS[3], consumer) == 1 then return redis.error_reply('FENCED') end
local taken, held, suspect = {}, {}, false
local function deaths_of(entry)
  return tonumber(redis.call('HGET', KEYS[2], 'deaths:' .. entry) or '0')
end
for i = 5, #ARGV do
  held[ARGV[i]] = true
  suspect = suspect or deaths_of(ARGV[i]) > 1
end
local function claim(pending, idle)
  for _, item in ipairs(pending) do
    if #taken >= count then return end
    local entry, holder = item[1], item[2]
    local given_back = holder == 'failed' or holder == 'left'
    local deaths = deaths_of(entry) + (given_back and 0 or 1)
    local mine = holder == consumer and held[entry]
    if not mine and not (suspect and deaths > 1) then
      local claimed = redis.call('XCLAIM', KEYS[1], group, consumer, idle, entry)[1]
      if claimed then
        if not given_back then redis.call('HSET', KEYS[2], 'deaths:' .. entry, deaths) end
        held[entry] = true
        suspect = suspect or deaths > 1
        local fields = claimed[2]
        table.insert(taken, {entry, fields[2], fields[4], fields[5], fields[6], deaths, holder})
      end
    end
  end
end
local most = count + #ARGV + 60
claim(pending_of(KEYS[1], group, 'IDLE', ARGV[3], '-', '+', most), ARGV[3])
claim(pending_of(KEYS[1], group, '-', '+', most + #taken, consumer), 0)
return taken

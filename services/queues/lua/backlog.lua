-- What there is to do, for who watches: nothing is changed. With the rights that a run's user has.
-- KEYS: prompts, rollouts, dead letters, credits in use
-- Returns the lengths of the first three, the fourth, and what the server says of its memory; ''
-- where its user may not ask.
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' then memory = memory.err and '' or tostring(memory.ok or '') end

local function length(stream)
  local about = redis.pcall('XINFO', 'STREAM', stream)
  if not about.err then return about[2] end
  if string.find(about.err, 'no such key') then return 0 end
  error(about.err)
end

local answer = {}
for key = 1, 3 do table.insert(answer, length(KEYS[key])) end
table.insert(answer, tonumber(redis.call('GET', KEYS[4]) or '0'))
table.insert(answer, memory)
return answer

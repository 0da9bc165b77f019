-- Somebody changed something.
-- KEYS: audit stream
-- ARGV: entries kept at least, then fields and their values
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 2))
return ''

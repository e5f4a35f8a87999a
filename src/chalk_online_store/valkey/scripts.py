"""What the server does in one step: scripts in Lua, which run alone and whole.

Lua's numbers are doubles, which end at 2**53: observed-ats are compared as two halves of 32 bits,
never as numbers. Nor as strings: Lua compares those by the server's locale.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

SUPERSEDED, PARTIALLY_APPLIED, APPLIED, DAMAGED, LEFT_NEWER = range(5)
"""What `MERGE` answers for each key."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and what the server knows it by once it has seen it."""

    text: bytes
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        # The server names scripts so; nothing is kept secret by it.
        sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha.encode())


MERGING = rb"""
-- codec.changes.merge of packed items: what the scripts begin with that know them.
local byte, sub, char, unpacked = string.byte, string.sub, string.char, struct.unpack
local ZERO = '\211\0\0\0\0\0\0\0\0'
local LATEST, BASE, WIDTH, ERASED = '@', '~', '%', '!'
local SUPERSEDED, PARTLY, WHOLLY, DAMAGED, LEFT_NEWER = 0, 1, 2, 3, 4
local BOOKKEEPING = {[LATEST] = true, [BASE] = true, [WIDTH] = true, [ERASED] = true}

-- Of what begins with a byte: its bytes, or those before its content and how many that has.
local BYTES = {[0xc0]=1, [0xc2]=1, [0xc3]=1, [0xca]=5, [0xcb]=9, [0xcc]=2, [0xcd]=3, [0xce]=5,
  [0xcf]=9, [0xd0]=2, [0xd1]=3, [0xd2]=5, [0xd3]=9, [0xd4]=3, [0xd5]=4, [0xd6]=6, [0xd7]=10,
  [0xd8]=18}
for first = 0x00, 0x7f do BYTES[first] = 1 end
for first = 0xa0, 0xbf do BYTES[first] = first - 0x9f end
for first = 0xe0, 0xff do BYTES[first] = 1 end
local HEAD = {[0xc4]=2, [0xc5]=3, [0xc6]=5, [0xc7]=3, [0xc8]=4, [0xc9]=6, [0xd9]=2, [0xda]=3,
  [0xdb]=5}
local SIZE = {[0xc4]='>I1', [0xc5]='>I2', [0xc6]='>I4', [0xc7]='>I1', [0xc8]='>I2', [0xc9]='>I4',
  [0xd9]='>I1', [0xda]='>I2', [0xdb]='>I4'}

local function past(text, at)
  local first = byte(text, at)
  local bytes = BYTES[first]
  if bytes then return at + bytes end
  return at + HEAD[first] + unpacked(SIZE[first], text, at + 1)
end

-- How many names an item has, and where they begin.
local function count_of(text)
  local first = byte(text, 1)
  if first == 0xde then return unpacked('>I2', text, 2) end
  if first < 0x80 or first > 0x8f then error('no item') end
  return first - 0x80, 2
end

-- An item: its names in order, and what each stands for, packed.
local function parse(text)
  local count, at = count_of(text)
  local names, values = {}, {}
  for place = 1, count do
    local value = at + byte(text, at) - 0x9f
    local stop = past(text, value)
    local name = sub(text, at + 1, value - 1)
    names[place] = name
    values[name] = sub(text, value, stop - 1)
    at = stop
  end
  if at ~= #text + 1 then error('no item') end
  return {names = names, values = values}
end

-- Whether two items have the same names in the same order, and the newest observed-at first.
local function alike(old, new)
  local count, at = count_of(old)
  local new_count, new_at = count_of(new)
  if count ~= new_count or sub(old, at, at + 2) ~= '\161@\211' then return false end
  for place = 1, count do
    local value = at + byte(old, at) - 0x9f
    local new_value = new_at + byte(new, new_at) - 0x9f
    if sub(old, at, value - 1) ~= sub(new, new_at, new_value - 1) then return false end
    at, new_at = past(old, value), past(new, new_value)
  end
  return true
end

local function put(item, name, value)
  if item.values[name] == nil then item.names[#item.names + 1] = name end
  item.values[name] = value
end

local function render(item)
  local parts, count = {''}, 0
  for _, name in ipairs(item.names) do
    local value = item.values[name]
    if value then
      count = count + 1
      parts[#parts + 1] = char(0xa0 + #name)
      parts[#parts + 1] = name
      parts[#parts + 1] = value
    end
  end
  parts[1] = count < 16 and char(0x80 + count) or struct.pack('>I1I2', 0xde, count)
  return table.concat(parts)
end

local function before(one, other)
  local high, low = unpacked('>i4I4', one, 2)
  local other_high, other_low = unpacked('>i4I4', other, 2)
  return high < other_high or (high == other_high and low < other_low)
end

-- When a feature's value, or its absence, was true.
local function time_of(item, id)
  local values = item.values
  return values[LATEST .. id]
    or (values[id] and (values[BASE] or values[LATEST]) or values[ERASED]) or ZERO
end

local function features(item)
  local found, seen = {}, {}
  for _, name in ipairs(item.names) do
    if not BOOKKEEPING[name] then
      local id = byte(name, 1) == 64 and sub(name, 2) or name
      if not seen[id] then
        seen[id] = true
        found[#found + 1] = id
      end
    end
  end
  return found
end

-- Each of the following answers what became of the change, the item, and whether its expiry holds.

local function rebase(item, new, at, known)
  local kept = false
  for _, id in ipairs(features(item)) do
    if not known[id] then
      kept = true
      put(new, BASE, at)
      put(new, LATEST .. id, time_of(item, id))
      if item.values[id] then put(new, id, item.values[id]) end
    end
  end
  if item.values[ERASED] then
    kept = true
    put(new, ERASED, item.values[ERASED])
  end
  return kept and PARTLY or WHOLLY, new, true
end

local function erase_late(item, at)
  local erased, found, left = item.values[ERASED] or ZERO, false, false
  for _, id in ipairs(features(item)) do
    local time = time_of(item, id)
    if before(time, at) or (not before(at, time) and item.values[id]) then
      found = true
      item.values[id], item.values[LATEST .. id] = nil, nil
    elseif item.values[id] then
      left = true
    end
  end
  if not found and not before(erased, at) then return SUPERSEDED end
  put(item, ERASED, before(erased, at) and at or erased)
  return left and LEFT_NEWER or PARTLY, item, false
end

local function set(item, new, at, gone, unless_newer)
  local news, deletes = {}, true
  local function consider(id)
    if not unless_newer or not before(at, time_of(item, id)) then news[#news + 1] = id end
  end
  for _, name in ipairs(new.names) do
    if not BOOKKEEPING[name] then
      deletes = false
      consider(name)
    end
  end
  for _, id in ipairs(gone) do consider(id) end
  if unless_newer and #news == 0 then return SUPERSEDED end
  local values = item.values
  if not values[BASE] then put(item, BASE, values[LATEST] or ZERO) end
  for _, name in ipairs(news) do
    put(item, LATEST .. name, at)
    if new.values[name] then put(item, name, new.values[name]) else values[name] = nil end
  end
  local newest = not before(at, values[LATEST] or ZERO)
  if newest then put(item, LATEST, at) end
  local outcome = PARTLY
  if deletes then
    for _, id in ipairs(gone) do
      if values[id] then outcome = LEFT_NEWER end
    end
  end
  return outcome, item, newest
end

local function split(ids)
  local found = {}
  for id in string.gmatch(ids, '[^ ]+') do found[#found + 1] = id end
  return found
end

local function merge(old, kind, names, packed)
  if not old and kind ~= 'p' then return WHOLLY, packed, true end
  if kind == 'w' and alike(old, packed) then  -- Most writes: no name is left, none is unknown.
    local _, at = count_of(old)
    if not before(sub(packed, at + 2, at + 10), sub(old, at + 2, at + 10)) then
      return WHOLLY, packed, true
    end
  end
  local new = parse(packed)
  local at = new.values[LATEST]
  local removed, dropped = string.match(names, '^([^|]*)|(.*)$')
  local gone = split(removed)
  if not old then
    local _, item, newest = set({names = {}, values = {}}, new, at, gone, false)
    return WHOLLY, render(item), newest
  end
  local item = parse(old)
  local outcome, merged, newest
  if kind ~= 'p' and not before(at, item.values[LATEST] or ZERO) then
    if kind == 'e' then return WHOLLY, packed, true end
    local known = {}
    for _, id in ipairs(features(new)) do known[id] = true end
    for _, id in ipairs(gone) do known[id] = true end
    for _, id in ipairs(split(dropped)) do known[id] = true end
    outcome, merged, newest = rebase(item, new, at, known)
  elseif kind == 'e' then
    outcome, merged, newest = erase_late(item, at)
  else
    outcome, merged, newest = set(item, new, at, gone, true)
  end
  return outcome, merged and render(merged), newest
end
"""

MERGE = Script(
    MERGING
    + rb"""
-- Merges changes into KEYS. ARGV holds three texts a key: what kind of change it is (w for whole,
-- e for erasing, p for partial) with its expiry in seconds, if it has one; the ids that it
-- removes and, for a whole one, those that stand for nothing; and what it puts, packed.
local outcomes = {}
for place, key in ipairs(KEYS) do
  local first = 3 * place - 2
  local kind, expires = sub(ARGV[first], 1, 1), sub(ARGV[first], 2)
  local old = redis.call('GET', key)
  local whole, outcome, item, newest = pcall(merge, old, kind, ARGV[first + 1], ARGV[first + 2])
  if not whole then
    outcome = DAMAGED
  elseif item then
    if newest and expires ~= '' then
      redis.call('SET', key, item, 'EXAT', expires)
    elseif newest then
      redis.call('SET', key, item)
    else
      redis.call('SET', key, item, 'KEEPTTL')
    end
  end
  outcomes[place] = outcome
end
return outcomes
"""
)
"""Applies changes to entities; answers what became of each."""

UPDATE = Script(
    MERGING
    + rb"""
-- Has a shared cache hear of what was written: see valkey.sharing for what its keys hold. ARGV
-- holds for how long what was heard is kept, in seconds, and then three texts a key as for MERGE,
-- without an expiry; b for what was done to the table, but is not known.
local hold = tonumber(ARGV[1])
for place, key in ipairs(KEYS) do
  local kind, names, packed = ARGV[3 * place - 1], ARGV[3 * place], ARGV[3 * place + 1]
  local old = redis.call('GET', key)
  local partial = not old or sub(old, 1, 1) == '?'
  local item = old and (partial and sub(old, 2) or old)
  local whole, _, merged = false, nil, nil
  if kind ~= 'b' and old ~= '!' then whole, _, merged = pcall(merge, item, kind, names, packed) end
  if not whole then
    redis.call('SET', key, '!', 'EX', hold)
  elseif partial or redis.call('TTL', key) < hold then  -- Else a slow read might undo it.
    redis.call('SET', key, '?' .. (merged or item), 'EX', hold)
  elseif merged then
    redis.call('SET', key, merged, 'KEEPTTL')
  end
end
return #KEYS
"""
)
"""Brings a shared cache up to date with writes; answers of how many it has heard."""

FILL = Script(
    MERGING
    + rb"""
-- Has a shared cache keep items as they were read: ARGV holds for how long, in seconds, and an
-- item for each of KEYS. What it has heard is merged into that, as if it came later.
local function join(told, item)
  local values, erased, news = item.values, told.values[ERASED], {}
  for _, id in ipairs(features(told)) do
    local at, was = time_of(told, id), time_of(item, id)
    local differs = erased or told.values[id] ~= values[id]
    if before(was, at) or (differs and not before(at, was)) then news[#news + 1] = id end
  end
  if erased then erase_late(item, erased) end
  local base = values[BASE] or values[LATEST] or ZERO
  for _, id in ipairs(news) do
    put(item, BASE, base)
    put(item, LATEST .. id, time_of(told, id))
    if told.values[id] then put(item, id, told.values[id]) else values[id] = nil end
  end
  local latest = told.values[LATEST] or ZERO
  if before(values[LATEST] or ZERO, latest) then
    put(item, BASE, base)
    put(item, LATEST, latest)
  end
  return render(item)
end

local kept = 0
for place, key in ipairs(KEYS) do
  local old, item = redis.call('GET', key), ARGV[place + 1]
  if not old then
    redis.call('SET', key, item, 'EX', ARGV[1])
    kept = kept + 1
  elseif old ~= '!' and old ~= item then
    local told = sub(old, 1, 1) == '?' and sub(old, 2) or old
    local whole, joined = pcall(function() return join(parse(told), parse(item)) end)
    if whole then
      redis.call('SET', key, joined, 'EX', ARGV[1])
      kept = kept + 1
    else
      redis.call('DEL', key)
    end
  end
end
return kept
"""
)
"""Keeps items in a shared cache; answers how many."""

SWAP = Script(
    rb"""
-- Performs all swaps or none; answers 1 or 0. KEYS are partitions: sorted sets whose members are a
-- sort key, a zero byte and an item. ARGV holds three texts a swap: its sort key; the member that
-- has to be there, '' for none, '*' for whatever is; and the one that it becomes, '' for none.
-- One more key and text are those of the generation, which is set where there is none yet.
local found, count = {}, math.floor(#ARGV / 3)
for place = 1, count do
  local first = 3 * place - 2
  local sk, expected = ARGV[first], ARGV[first + 1]
  local members = redis.call('ZRANGEBYLEX', KEYS[place], '[' .. sk .. '\0', '(' .. sk .. '\1')
  found[place] = members[1]
  if expected ~= '*' and expected ~= (members[1] or '') then return 0 end
end
for place = 1, count do
  local key, after = KEYS[place], ARGV[3 * place]
  if found[place] and found[place] ~= after then redis.call('ZREM', key, found[place]) end
  if after ~= '' then redis.call('ZADD', key, 0, after) end
end
if KEYS[count + 1] then redis.call('SET', KEYS[count + 1], ARGV[#ARGV], 'NX') end
return 1
"""
)
"""Swaps items of reserved partitions."""

REPLICAS = Script(
    rb"""
-- How many replicas the server that has a key has, as far as the user may know.
local info = redis.pcall('INFO', 'replication')
return type(info) == 'string' and tonumber(string.match(info, 'connected_slaves:(%d+)')) or 0
"""
)
"""Counts replicas."""

-- Links the views of a packet with each other, in captures of ebpfdump: those with the same packet
-- id. What was read also gets the time since the filter saw it. A frame knows those that were
-- dissected before it: in Wireshark, which dissects a frame again when it is selected, all of them.
local view = Field.new("frame.interface_name")
local id = Field.new("frame.packet_id")

local ebpfdump = Proto("ebpfdump", "ebpfdump")
local other = ProtoField.framenum("ebpfdump.other_view", "The same packet in another view", base.NONE)
local since = ProtoField.relative_time("ebpfdump.since_filter", "Since the filter saw it")
ebpfdump.fields = { other, since }

local views = {}  -- of each id: the number, view and time of each frame that has it
local known = {}  -- numbers of frames

function ebpfdump.init() views, known = {}, {} end

function ebpfdump.dissector(_, pinfo, tree)
	local name, number = view(), id()
	if not name or not number then return end
	local key, kind, what = tostring(number.value), string.match(tostring(name.value), "^(.*):(%l+)$")
	if not what or key == "0" then return end
	local all = views[key]
	if not all then all = {}; views[key] = all end
	if not known[pinfo.number] then
		known[pinfo.number] = true
		table.insert(all, { number = pinfo.number, view = what, time = pinfo.abs_ts })
	end
	if #all < 2 then return end
	local below = tree:add(ebpfdump, "ebpfdump, packet " .. key)
	local filtered
	for _, one in ipairs(all) do
		if one.number ~= pinfo.number then
			below:add(other, one.number):append_text(" (" .. one.view .. ")")
		end
		if one.view == "kernel" then filtered = one.time end
	end
	if what == "user" and filtered then
		local passed = pinfo.abs_ts - filtered
		below:add(since, NSTime.new(math.floor(passed), math.floor((passed % 1) * 1e9)))
	end
end

register_postdissector(ebpfdump)

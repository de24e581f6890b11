-- Sends the requests of a folder in turn and compares every answer with the scores expected of them.
-- Arguments: the folder (1.request, 1.expected, 2.request, ...), how many there are, the text before the scores, the tolerance.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   local folder, count = args[1], tonumber(args[2])
   before, tolerance = args[3], tonumber(args[4])
   requests, expected, wrong, sent = {}, {}, 0, 0
   example = ""
   for i = 1, count do
      local file = assert(io.open(folder .. "/" .. i .. ".request", "rb"))
      requests[i] = file:read("*a")
      file:close()
      expected[i] = {}
      for line in io.lines(folder .. "/" .. i .. ".expected") do
         table.insert(expected[i], tonumber(line))
      end
   end
end

function request()
   sent = sent + 1
   return requests[sent % #requests + 1]
end

local function close(got, want)
   return got and math.abs(got - want) <= 1e-6 + tolerance * math.abs(want)
end

-- wrk does not say which request an answer belongs to: it must fit one of them as a whole.
local function is_right(body)
   local _, position = body:find(before, 1, true)
   if not position then return false end
   local found = {}
   for i = 1, #expected[1] do
      local from, to = body:find("-?%d[%d.eE+-]*", position + 1)
      if not from then return false end
      found[i], position = tonumber(body:sub(from, to)), to
   end
   for _, scores in ipairs(expected) do
      local fits = true
      for i = 1, #scores do
         if not close(found[i], scores[i]) then fits = false break end
      end
      if fits then return true end
   end
   return false
end

function response(status, headers, body)
   if status ~= 200 or not is_right(body) then
      wrong = wrong + 1
      if example == "" then example = status .. " " .. body:sub(1, 300) end
   end
end

function done(summary, latency, requests)
   local wrong, sent, example = 0, 0, ""
   for _, thread in ipairs(threads) do
      wrong, sent = wrong + thread:get("wrong"), sent + thread:get("sent")
      if example == "" then example = thread:get("example") end
   end
   local errors = summary.errors
   print(string.format(
      "figures requests=%d sent=%d microseconds=%d connect=%d read=%d write=%d status=%d timeout=%d wrong=%d p50=%d p99=%d",
      summary.requests, sent, summary.duration, errors.connect, errors.read, errors.write, errors.status,
      errors.timeout, wrong, latency:percentile(50), latency:percentile(99)))
   print("example " .. example:gsub("%s", " "))
end

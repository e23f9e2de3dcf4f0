-- Ends HAProxy when its guard is gone (haproxy_guard.py): nothing else would, once Serve's manager is dead too, and a server
-- that is started next would find the port in use.
local guard = os.getenv("HAPROXY_GUARD")

core.register_task(function()
  while guard do
    core.msleep(500)
    local status = io.open("/proc/" .. guard .. "/stat")
    if status == nil or status:read("a"):find("%) Z ") then
      os.exit(1, false)
    end
    status:close()
  end
end)

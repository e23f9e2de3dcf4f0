-- Takes requests away from a replica that HAProxy's checks have found frozen. HAProxy takes that for an empty response
-- and sends them to another replica (retry-on), which answers them before their deadline.
--
-- `on-marked-down shutdown-sessions` would do the same for a replica that was killed, where it seems to do harm: with it a
-- request was lost (docs/decisions/0055-faults.md).
core.register_task(function()
  while true do
    core.msleep(500)
    for _, backend in pairs(core.backends) do
      for _, server in pairs(backend.servers) do
        local stats = server:get_stats()
        local silent = stats.check_status == "L7TOUT" or stats.check_status == "L4TOUT"
        if silent and stats.scur > 0 and stats.status:find("^DOWN") then
          server:shut_sess()
        end
      end
    end
  end
end)

"""The recorder's alarms: what is wrong, with which table, since when, and why.

    tables, tasks, loop ──Board.look──► Look ──rules.findings──► what is wrong now
                                                    │
                             AlarmState ──state.advance──► AlarmState, and what was raised or cleared
                                                                        │
                          log line, row of `system_events`, metric, /status ◄──┘

`rules`, `state` and `stillness` are pure; `board` reads the recorder and tells. `docs/alarms.md` says what each means.
"""

"""Face. Pictures and tables of what happened: Gantt, contact sheet, usage."""

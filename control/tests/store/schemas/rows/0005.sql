INSERT INTO answers (id, at, request, status, body) VALUES (X'01', 1795355470808, X'02', 200, X'03');

UPDATE sessions SET method = 'password', address = '2001:db8::9', client = 'sluice', last_used = 1795355470809;

\set id random(1, :rows)
SELECT value FROM pooler.query('dn', 'SELECT value FROM item WHERE id = $1', ':id') AS t(value int);

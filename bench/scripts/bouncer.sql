\set id random(1, :rows)
SELECT value FROM item_bouncer WHERE id = :id;

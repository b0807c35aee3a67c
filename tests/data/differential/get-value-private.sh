# A private value is set, never given.
echo "<secret private='yes'><uuid>4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='volume'><volume>/srv/disk</volume></usage></secret>" > p.xml
VIRSH secret-define p.xml
VIRSH secret-set-value 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 aGVs
VIRSH secret-get-value 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234

from fedbcs_monai.drivers.simulate import train
import pytest, time
@pytest.mark.parametrize("e",["nuclei_fedavg","nuclei_fedbcs"])
def test_x(tiny,e):
    t=time.time()
    c=tiny(e)
    print(time.time()-t); t=time.time()
    f=train(c)
    print(time.time()-t); t=time.time()
    for p in sorted(f.rglob("*")): print(p.relative_to(f), p.stat().st_size)
    for n in ("scores.csv","summary.json","rounds.csv"): print((f/n).read_text())
def test_y(tiny_prostate):
    t=time.time()
    f=train(tiny_prostate)
    print(time.time()-t); t=time.time()
    print((f/"scores.csv").read_text())
